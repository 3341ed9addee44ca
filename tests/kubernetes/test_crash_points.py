"""The operator killed (SIGKILL) right before and right after its writes; the next one finds what it finds.

Each case is a run of its own, in a namespace of its own, with operator processes of its own: `make test-crash-points` has one for
every single write of a whole run, and `make test` a sample. Whoever is killed when, the run ends as it would have: with the same
status, but for times, the same artifacts, each computed once, the same Jobs, each created once, and nothing left at work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.handle import Cluster
from support.crash_points import WHOLE, Crash, Moment, Scenario, outcome, outcomes, sweep
from support.crash_table import Row, table, write_into_document
from support.operator_forks import Forks

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]

#: Enough to hide what a stage waits for others: the Job controller looks at ended pods once a second.
PARALLEL = int(os.environ.get("RLHF_CRASH_RUNS", "8"))

RUN = Scenario("a whole run", WHOLE)
#: One iteration; every kind of write is in it.
SHORT = Scenario("one iteration", {**WHOLE, "iterations": 1})
#: A train that fails and is tried again, an evaluation without a word that is looked up, and at the end children that are removed.
TROUBLED = Scenario(
    "retries, a lookup and removal by ttl",
    {**WHOLE, "iterations": 1, "ttlSecondsAfterFinished": 0, "retry": {"application": 1, "backoffSeconds": 0}},
    {"train-1": ("exit 1",), "evaluate-1": ("no-result",)},
)
LEASE = Scenario("the Lease", SHORT.spec, writes=lambda asked: asked.write and asked.resource == "leases")

SAMPLE = (
    Crash(2, Moment.BEFORE, "jobs"),
    Crash(2, Moment.AFTER, "jobs"),
    Crash(3, Moment.BEFORE, "rlhfruns/status"),
    Crash(4, Moment.AFTER, "rlhfruns/status"),
    Crash(1, Moment.AFTER, "services"),
    Crash(6, Moment.BEFORE, "configmaps"),
    Crash(1, Moment.AFTER, "networkpolicies"),
    Crash(3, Moment.BEFORE, "events"),
)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


def test_a_run_ends_the_same_wherever_its_operator_is_killed(cluster: Cluster, forks: Forks, tmp_path: Path) -> None:
    """The sample: of each kind of write one."""
    reference, *killed = outcomes(cluster, forks, tmp_path, SHORT, (None, *SAMPLE), PARALLEL)
    assert reference.state is not None, reference.problems
    assert reference.problems == ()
    assert {case.crash: case.differences(reference.state) for case in killed if case.differences(reference.state)} == {}
    assert [case.crash for case in killed if case.at is None] == []


@pytest.mark.crash_points
@pytest.mark.timeout(7200)
def test_a_run_ends_the_same_at_whichever_of_its_writes_the_operator_is_killed(
    cluster: Cluster, forks: Forks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With UPDATE_GOLDEN=1 the table goes into docs/reliability.md."""
    begun = time.monotonic()
    rows: list[Row] = []
    failures: dict[str, tuple[str, ...]] = {}
    for scenario in (RUN, TROUBLED, LEASE):
        reference = outcome(cluster, forks, tmp_path / scenario.name / "reference", scenario, None)
        assert reference.state is not None, reference.problems
        assert reference.problems == ()
        for case in sweep(cluster, forks, tmp_path / scenario.name, scenario, PARALLEL):
            differences = case.differences(reference.state)
            rows.append(Row(scenario.name, case.crash, case.at, differences))
            if differences:
                failures[f"{scenario.name}: {case.crash}"] = differences
            with capsys.disabled():
                print(
                    f"\n{scenario.name}: {case.crash} {case.at and case.at.resource} {case.seconds:.0f} s {differences or ''}",
                    end="",
                )
    text = table(rows, time.monotonic() - begun)
    with capsys.disabled():
        print(f"\n\n{text}")
    if os.environ.get("UPDATE_GOLDEN"):
        write_into_document(text)
    assert failures == {}
