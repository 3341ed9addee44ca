"""The operator killed (SIGKILL) right before and right after its writes; the next one finds what it finds.

`make test-crash-points` does it at every single write of a whole run, and `make test` at a sample. Whoever is killed when, a run
ends as it would have: with the same status, but for times, the same artifacts, each computed once, the same Jobs, each made once,
and nothing left at work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cluster.handle import Cluster
from support.crash_points import WHOLE, Choose, Crash, FinalState, Moment, Outcome, Scenario, Write, outcome, outcomes, sweep
from support.crash_table import table, write_into_document
from support.golden import updating
from support.operator_forks import Forks

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]

#: Runs at a time: a stage waits most of its time, for the Job controller looks at ended pods once a second.
PARALLEL = int(os.environ.get("RLHF_CRASH_RUNS", "8"))
#: Writes between two crashes of a run. With 1000 there is one crash a run, and the sweep takes ten times as long.
SPACING = int(os.environ.get("RLHF_CRASH_SPACING", "10"))

RUN = Scenario("whole run", WHOLE)
#: A train that fails and is tried again, an evaluation without a word that is looked up, and at the end children that are removed.
TROUBLED = Scenario(
    "troubled run",
    {**WHOLE, "iterations": 1, "ttlSecondsAfterFinished": 0, "retry": {"application": 1, "backoffSeconds": 0}},
    {"train-1": ("exit 1",), "evaluate-1": ("no-result",)},
)
#: One iteration, with every kind of write in it.
SHORT = Scenario("one iteration", {**WHOLE, "iterations": 1})
#: Of SHORT: method, resource, which of them from 1.
SAMPLE = (
    ("POST", "leases", 1),
    ("PATCH", "rlhfruns/status", 1),
    ("POST", "networkpolicies", 1),
    ("POST", "configmaps", 2),
    ("PATCH", "rlhfruns/status", 6),
    ("POST", "jobs", 4),
    ("POST", "events", 7),
    ("POST", "services", 1),
    ("POST", "jobs", 7),
    ("PATCH", "rlhfruns/status", 12),
)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


def test_a_run_ends_the_same_wherever_its_operator_is_killed(cluster: Cluster, forks: Forks, tmp_path: Path) -> None:
    """The sample: one run with all crashes before the writes, one with all after them, one in which the writes are late."""
    choices: list[Choose] = [lambda _: None, *map(sampled, Moment)]
    undisturbed, *killed = outcomes(cluster, forks, tmp_path, SHORT, choices, len(choices))
    assert undisturbed.problems == ()
    assert undisturbed.state is not None
    assert [case.differences(undisturbed.state) for case in killed] == [()] * len(Moment)
    assert [len(case.crashes) for case in killed] == [len(SAMPLE)] * len(Moment)


@pytest.mark.crash_points
@pytest.mark.timeout(4 * 3600)
def test_a_run_ends_the_same_at_whichever_of_its_writes_the_operator_is_killed(
    cluster: Cluster, forks: Forks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With UPDATE_GOLDEN=1 the table goes into docs/reliability.md."""
    begun = time.monotonic()
    found: dict[str, tuple[FinalState, list[Outcome]]] = {}
    for scenario in (RUN, TROUBLED):
        undisturbed = outcome(cluster, forks, tmp_path / scenario.name / "undisturbed", scenario)
        assert undisturbed.problems == ()
        assert undisturbed.state is not None
        runs: list[Outcome] = []
        found[scenario.name] = undisturbed.state, runs
        for run in sweep(cluster, forks, tmp_path / scenario.name, scenario, spacing=SPACING, parallel=PARALLEL):
            runs.append(run)
            with capsys.disabled():
                said = run.differences(undisturbed.state) or "as it must be"
                print(f"{scenario.name} {len(runs)}: {len(run.crashes)} crashes, {run.seconds:.0f} s, {said}", flush=True)
    text = table(found, time.monotonic() - begun)
    with capsys.disabled():
        print(f"\n{text}")
    if updating():
        write_into_document(text)
    assert failures(found) == {}
    assert all(crashed_at_all_writes(runs) for _, runs in found.values())


def sampled(moment: Moment) -> Choose:
    counts: dict[tuple[str, str], int] = {}

    def choose(write: Write) -> Moment | None:
        kind = (write.method, write.resource)
        counts[kind] = counts.get(kind, 0) + 1
        return moment if (*kind, counts[kind]) in SAMPLE else None

    return choose


def failures(found: Mapping[str, tuple[FinalState, list[Outcome]]]) -> dict[str, tuple[str, ...]]:
    """By what was killed in a run: in what it is not as it must be."""
    return {
        f"{name}: {[(str(crash.moment), crash.write) for crash in run.crashes]}": run.differences(state)
        for name, (state, runs) in found.items()
        for run in runs
        if run.differences(state)
    }


def crashed_at_all_writes(runs: list[Outcome]) -> bool:
    """Of the last run, which was left alone, none was left out."""
    crashes = {crash for run in runs for crash in run.crashes}
    [*_, last] = [run for run in runs if not run.crashes]
    return all(Crash(write, moment) in crashes for write in last.writes for moment in Moment)
