"""Does the quickstart's model get better, whatever the seed? `python benchmarks/quickstart_seeds.py [--seeds 0 1 2] [--folder DIR]`

Each seed is a whole `rlhfctl quickstart`. Its best iterate by `selection` is compared with pi_0 on the test prompts, which nothing
else reads: the paired difference of the grade, at temperature 1 and greedy, with its 95 % interval by bootstrap over prompts.
Accepted is a seed whose lower bounds are both above 0. Prints seconds by stage and the peak memory of the process tree too; exits 1
when a seed fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from rlhf_api.metrics import MetricValue
from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import StageStatus
from rlhf_api.words import StageName
from rlhf_operator.local import LocalState
from rlhf_trainer.evaluation import stats

RUN = "quickstart"


@dataclass(frozen=True)
class Gain:
    """grade: mean over the test prompts; difference: paired, best - pi_0."""

    decoding: str
    initial: float
    best: float
    initial_exact: float
    best_exact: float
    difference: MetricValue


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--folder", type=Path, default=Path(".rlhf-seeds"), help="a state folder for each seed; finished ones are kept"
    )
    arguments = parser.parse_args()
    accepted = True
    print("seed  best  decoding  grade pi_0  grade best  exact pi_0  exact best  difference [95 % interval]", flush=True)
    for seed in arguments.seeds:
        state = arguments.folder / f"seed-{seed}"
        seconds, peak = _run(state, seed)
        run = LocalState(state).load(RUN)
        for gain in _gains(run):
            bounds = f"{gain.difference.value:+.4f} [{gain.difference.lower:+.4f}, {gain.difference.upper:+.4f}]"
            best = run.status.best_iteration if run.status else None
            means = f"{gain.initial:>10.4f}  {gain.best:>10.4f}  {gain.initial_exact:>10.3f}  {gain.best_exact:>10.3f}"
            print(f"{seed:>4}  pi_{best}  {gain.decoding:<8}  {means}  {bounds}", flush=True)
            accepted &= (gain.difference.lower or 0.0) > 0
        print(f"      {seconds:.0f} s, peak {peak / 2**30:.1f} GiB; {_by_stage(run)}", flush=True)
    print("accepted" if accepted else "NOT accepted: a lower bound is not above 0")
    return 0 if accepted else 1


def _run(state: Path, seed: int) -> tuple[float, int]:
    """(seconds, peak resident bytes of the process tree) of a whole quickstart."""
    started = time.monotonic()
    state.mkdir(parents=True, exist_ok=True)
    with (state / "quickstart.log").open("a") as log:
        command = [sys.executable, "-m", "rlhfctl", "quickstart", "--state", str(state), "--seed", str(seed)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        peak = [0]
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peak, over))
        watcher.start()
        code = process.wait()
        over.set()
        watcher.join()
    if code != 0:
        raise SystemExit(f"seed {seed}: rlhfctl quickstart ended with {code}; see {state / 'quickstart.log'}")
    return time.monotonic() - started, peak[0]


def _watch(root: int, peak: list[int], over: threading.Event) -> None:
    while not over.wait(2.0):
        peak[0] = max(peak[0], sum(_proportional(pid) for pid in _tree(root)))


def _tree(root: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _proportional(pid: int) -> int:
    """Bytes: pages that forked processes share are divided among them."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def _gains(run: RLHFRun) -> list[Gain]:
    initial, best = _grades(run, 0), _grades(run, run.status.best_iteration or 0 if run.status else 0)
    gains = []
    for decoding in ("sampled", "greedy"):
        ours, theirs = best[decoding], initial[decoding]
        pairs = [(ours[prompt], theirs[prompt]) for prompt in theirs]
        gains.append(
            Gain(
                decoding=decoding,
                initial=sum(b for _, b in pairs) / len(pairs),
                best=sum(a for a, _ in pairs) / len(pairs),
                initial_exact=sum(b == 1.0 for _, b in pairs) / len(pairs),
                best_exact=sum(a == 1.0 for a, _ in pairs) / len(pairs),
                difference=stats.difference_with_interval([a for a, _ in pairs], [b for _, b in pairs]),
            )
        )
    return gains


def _grades(run: RLHFRun, iterate: int) -> dict[str, dict[str, float]]:
    """By decoding, the grade of each test prompt's answer."""
    assert run.status is not None
    stages = run.status.stages if iterate == 0 else run.status.iterations[iterate - 1].stages
    artifact = next(stage.artifact for stage in stages if stage.name is StageName.EVALUATE)
    assert artifact is not None
    grades: dict[str, dict[str, float]] = {"sampled": {}, "greedy": {}}
    folder = Path(artifact.url.removeprefix("file://"))
    for row in pq.read_table(next(folder.rglob("evaluation.parquet"))).to_pylist():
        if row["set"] == "test":
            grades[row["decoding"]][row["prompt_id"]] = row["judge_score"]
    return grades


def _by_stage(run: RLHFRun) -> str:
    """Seconds by stage, iterations added up."""
    assert run.status is not None
    seconds: dict[str, float] = {}
    stages: list[StageStatus] = [*run.status.stages, *(s for iteration in run.status.iterations for s in iteration.stages)]
    for stage in stages:
        if stage.start_time and stage.completion_time:
            taken = (stage.completion_time - stage.start_time).total_seconds()
            seconds[stage.name] = seconds.get(stage.name, 0.0) + taken
    return ", ".join(f"{name} {taken:.0f}" for name, taken in seconds.items())


if __name__ == "__main__":
    sys.exit(main())
