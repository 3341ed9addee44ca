"""How long do GPUs stand idle between two stages, and what does it cost? `python benchmarks/operator_gap.py [--runs 200]`

One operator, as it is installed, on a real API server, scheduler and controller manager; kwok plays the nodes and pods. KUBECONFIG
names the cluster; without it the test cluster is started, and ended afterwards.

1. `--listed` runs are made. Most have ended or are suspended, with the status of a run of three iterations; `--runs` are to work.
2. The operator starts, and those that work begin one after another. Pods take from half to one and a half times `--takes` seconds,
   one run's always the same, so that stages end at random moments. A real stage takes minutes to hours: this is more changes a
   second than so many runs make.
3. For `--seconds` it measures:
   - the gap of each stage: watches of Jobs and Pods, read with a monotonic clock, say that all pods of a Job have succeeded, and
     later that the run's next Job was made. It holds everything that the operator does: its own watch, reads, status, events,
     ConfigMap, Job. The Job's condition Complete comes later still, often after the next Job: that would be a gap of nothing.
   - the yardstick: requests as the operator makes them for one stage, on objects of the same size, made one after another on one
     connection by a client that does nothing else. A gap that is one yardstick long has nothing in it but the API server.
   - the operator's requests, CPU seconds and memory.

Prints the figures, and exits 1 where the median gap is not below 1 s, the 99th percentile not below 2 s or memory not below 250 MB.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cluster.api import MERGE_PATCH
from cluster.fixtures import establish, running
from cluster.handle import Cluster
from cluster.layout import layout
from cluster.stages import TAKES
from gaps.watched import RUNS, gaps_of
from gaps.yardstick import Yardstick
from support import example_runs
from support.operated_runs import ClusterRun, manifest
from support.operator_process import OperatorProcess, errors
from support.waiting import wait_until

MEDIAN_SECONDS, WORST_SECONDS, MEMORY_MB = 1.0, 2.0, 250.0
_YARDSTICK_EVERY = 1.5
_PARTS = 3
_CLIENTS = 8


@dataclass(frozen=True)
class Size:
    runs: int
    """At work at a time."""
    listed: int
    """In all."""
    takes: float
    """Seconds of a stage, on average."""
    seconds: float
    """Measured."""


@dataclass(frozen=True)
class Figures:
    size: Size
    gaps: list[tuple[float, float]]
    """(When the Job was seen to be complete, in seconds from the beginning; seconds until the next one.)"""
    yardstick: list[float]
    told: float
    """Mean seconds of rlhf_stage_gap_seconds: from the operator's own hearing of the end."""
    requests: Counter[tuple[str, str]]
    cpu_seconds: float
    listed_mb: float
    worked_mb: float
    status_bytes: float
    failures: list[str]
    load: tuple[float, float, float]

    @property
    def seconds(self) -> list[float]:
        return sorted(gap for _, gap in self.gaps)

    @property
    def problems(self) -> list[str]:
        """What is not as it should be."""
        checks = [
            (percentile(self.seconds, 50), MEDIAN_SECONDS, "s, the median gap"),
            (percentile(self.seconds, 99), WORST_SECONDS, "s, the 99th percentile of gaps"),
            (max(self.listed_mb, self.worked_mb), MEMORY_MB, "MB of memory"),
        ]
        over = [f"{found:.3f} {what}, is not below {limit:g}" for found, limit, what in checks if found >= limit]
        return over + [f"the operator says: {failure}" for failure in self.failures]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="runs at work at a time (default: 200)")
    parser.add_argument("--listed", type=int, default=1000, help="runs in all (default: 1000)")
    parser.add_argument("--takes", type=float, default=45.0, help="seconds of a stage, on average (default: 45)")
    parser.add_argument("--seconds", type=float, default=120.0, help="to measure (default: 120)")
    options = parser.parse_args(arguments)
    size = Size(options.runs, max(options.listed, options.runs), options.takes, options.seconds)
    with running(layout(f"benchmark-{os.getpid()}")) as cluster, tempfile.TemporaryDirectory() as folder:
        establish(cluster)
        figures = measure(cluster, size, Path(folder))
    report(figures)
    for problem in figures.problems:
        print(f"NOT AS IT SHOULD BE: {problem}")
    return 1 if figures.problems else 0


def measure(cluster: Cluster, size: Size, folder: Path, operator_class: type[OperatorProcess] = OperatorProcess) -> Figures:
    with cluster.namespace() as namespace, cluster.namespace() as beside:
        _say(f"making {size.listed - size.runs} runs that have ended or are suspended")
        status_bytes = _seed(cluster, namespace, size)
        with operator_class(folder, cluster.kubeconfig, [namespace]) as operator, gaps_of(cluster, namespace) as gaps:
            operator.wait_leading()
            _begin(cluster, namespace, size, seconds=0 if size.takes < 5 else size.takes)
            listed_mb = _memory(operator, "VmRSS")
            _say(f"{size.runs} runs are at work beside them; the operator has {listed_mb:.0f} MB")
            wait_until(lambda: gaps.found, "the first stage to end", seconds=60 + 3 * size.takes)
            yardstick = Yardstick(cluster, namespace, beside)
            time.sleep(size.takes / 2)
            _say(f"measuring for {size.seconds:.0f} s")
            begin, before, cpu = time.monotonic(), _Counters(operator), _cpu(operator)
            while time.monotonic() < begin + size.seconds:
                yardstick.measure()
                time.sleep(_YARDSTICK_EVERY)
            after = _Counters(operator)
            return Figures(
                size=size,
                gaps=[(ended - begin, gap) for ended, gap in gaps.found if begin <= ended],
                yardstick=yardstick.found,
                told=(after.gap_sum - before.gap_sum) / max(1, after.gap_count - before.gap_count),
                requests=after.requests - before.requests,
                cpu_seconds=_cpu(operator) - cpu,
                listed_mb=listed_mb,
                worked_mb=_memory(operator, "VmHWM"),
                status_bytes=status_bytes,
                failures=[line["message"] for line in errors(operator.lines())],
                load=os.getloadavg(),
            )


def report(figures: Figures) -> None:
    size, seconds, stages = figures.size, figures.seconds, len(figures.gaps)
    print(
        f"{size.listed} runs, {size.runs} of them at work for {size.seconds:.0f} s, a stage takes {size.takes / 2:g} to "
        f"{size.takes * 1.5:g} s: {stages} gaps, {stages / size.seconds:.1f} a second"
    )
    print(f"{os.cpu_count()} cores, load {figures.load[0]:.1f} {figures.load[1]:.1f} {figures.load[2]:.1f} (1, 5, 15 minutes)")
    if not seconds:
        print("no stage ended")
        return
    yard = statistics.median(figures.yardstick)
    print("\nfrom a Job's end to the run's next Job, seconds")
    print(f"  {_spread(seconds)}")
    for number in range(_PARTS):
        part = [gap for at, gap in figures.gaps if number <= at / size.seconds * _PARTS < number + 1]
        print(f"    part {number + 1} of {_PARTS}: {_spread(sorted(part)) if part else 'no stage ended'}")
    print(f"  yardstick, the same requests by one client: {_spread(sorted(figures.yardstick))}")
    print(f"  median gap / median yardstick: {percentile(seconds, 50) / yard:.2f}")
    print(f"  mean from when the operator is told (rlhf_stage_gap_seconds): {figures.told:.3f}")
    print("\nthe operator")
    print(f"  memory with {size.listed} runs listed, statuses of {figures.status_bytes / 1024:.1f} kB: {figures.listed_mb:.0f} MB")
    print(f"  memory at most, with {size.runs} at work: {figures.worked_mb:.0f} MB")
    print(f"  CPU: {1000 * figures.cpu_seconds / stages:.0f} ms a stage, {figures.cpu_seconds / size.seconds:.2f} cores")
    print(f"\nAPI requests by stage: {sum(figures.requests.values()) / stages:.2f}")
    for (verb, resource), count in sorted(figures.requests.items(), key=lambda entry: -entry[1]):
        print(f"  {count / stages:6.2f}  {verb} {resource}")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest rank; of nothing infinite, which is below no limit."""
    if not ordered:
        return float("inf")
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


# --- runs ---


def _seed(cluster: Cluster, namespace: str, size: Size) -> float:
    """Runs that are not at work; the mean size of their statuses in bytes."""
    kinds = [example_runs.finished] * 8 + [example_runs.failed, example_runs.at_work]

    def make(number: int) -> int:
        name = f"listed-{number}"
        run = kinds[number % len(kinds)](name, f"s3://bucket/{name}").to_wire()
        run["metadata"]["namespace"] = namespace
        run["spec"]["suspend"] = number % len(kinds) == len(kinds) - 1
        status = run.pop("status")
        cluster.api.post(RUNS.format(namespace), run)
        cluster.api.patch(f"{RUNS.format(namespace)}/{name}/status", {"status": status}, MERGE_PATCH)
        return len(str(status))

    with ThreadPoolExecutor(_CLIENTS) as pool:
        sizes = list(pool.map(make, range(size.listed - size.runs)))
    return statistics.fmean(sizes) if sizes else 0.0


def _begin(cluster: Cluster, namespace: str, size: Size, seconds: float) -> None:
    """The runs that work, evenly over so many seconds."""
    chance = random.Random(0)
    for number in range(size.runs):
        takes = chance.uniform(0.5, 1.5) * size.takes
        annotations = {TAKES: f"{takes:.3f}s"}
        cluster.api.post(
            RUNS.format(namespace),
            manifest(f"works-{number}", namespace, iterations=50, podDefaults={"annotations": annotations}),
        )
        time.sleep(seconds / size.runs)
    wait_until(
        lambda: all(ClusterRun(cluster, namespace, f"works-{number}").jobs() for number in {0, size.runs - 1}),
        "the last run's first Job",
        seconds=120,
        every=0.5,
    )


# --- the operator's own figures ---


class _Counters:
    """rlhf_api_requests_total and rlhf_stage_gap_seconds, of now."""

    def __init__(self, operator: OperatorProcess) -> None:
        page = operator.get("/metrics")[1]
        self.requests: Counter[tuple[str, str]] = Counter()
        for labels, value in re.findall(r"^rlhf_api_requests_total\{(.*)\} (\S+)$", page, re.MULTILINE):
            found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            self.requests[found["verb"], found["resource"]] += int(float(value))
        self.gap_sum = operator.metric("rlhf_stage_gap_seconds_sum")
        self.gap_count = operator.metric("rlhf_stage_gap_seconds_count")


def _memory(operator: OperatorProcess, which: str) -> float:
    """VmRSS: now; VmHWM: at most so far. In MB of 1,000,000 bytes."""
    status = Path(f"/proc/{operator.process.pid}/status").read_text()
    found = re.search(rf"^{which}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def _cpu(operator: OperatorProcess) -> float:
    """User and system seconds so far."""
    after_name = Path(f"/proc/{operator.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def _spread(ordered: Sequence[float]) -> str:
    shown = {"p50": 50, "p90": 90, "p99": 99}
    words = [f"{name} {percentile(ordered, percent):.3f}" for name, percent in shown.items()]
    return f"{', '.join(words)}, from {ordered[0]:.3f} to {ordered[-1]:.3f}, of {len(ordered)}"


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
