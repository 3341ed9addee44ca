"""annotations in a cluster with its operator: what a run waits for goes out of a bucket, and what people answered goes in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.api import MERGE_PATCH
from rlhf_api.resource.storage import Storage
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import ArtifactWriter, open_store
from rlhfctl.exits import Exit
from support.cluster_runs import ClusterRuns
from support.operator_process import OperatorProcess
from support.people import ALL, PAIRS, Row, write_answers
from support.rlhfctl import Done, rlhfctl
from support.s3 import ENVIRONMENT, S3Server
from support.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.s3]


@pytest.fixture
def storage(s3_server: S3Server) -> Storage:
    return s3_server.storage()


@pytest.fixture
def operator(runs: ClusterRuns) -> OperatorProcess:
    return OperatorProcess(runs.folder, runs.cluster.kubeconfig, [runs.namespace])


@pytest.fixture
def paused(runs: ClusterRuns, storage: Storage, operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """An operator, and a run of its that waits for the answers to questions that lie in a bucket."""
    human = {"type": "Human", "human": {"annotatorsPerPair": 1}}
    file = runs.manifest(iterations=1, reward=human, storage=storage.to_wire())
    with operator:
        operator.wait_leading()
        submitted = here(runs, "submit", str(file))
        assert submitted.code == 0, submitted.err
        until(runs, "Paused")
        _seal(runs, storage)
        yield operator


def _seal(runs: ClusterRuns, storage: Storage) -> None:
    """Questions where the run's own should be: a simulated pod has sealed nothing."""
    iterations = status(runs)["iterations"]
    [asked] = [stage for stage in iterations[0]["stages"] if stage["name"] == "ask"]
    writer = ArtifactWriter(open_store(storage), ArtifactKind.QUESTIONS, asked["artifact"]["fingerprint"])
    rows = [{"pair_id": pair, "messages": [], "response_a": "one", "response_b": "x"} for pair in PAIRS]
    writer.add_bytes("".join(json.dumps(row) + "\n" for row in rows).encode(), "questions.jsonl")
    writer.add_bytes(b"parquet", "questions.parquet")
    asked["artifact"]["digest"] = writer.seal(stage=StageName.ASK, counts={"questions": len(PAIRS)}).ref.digest
    runs.cluster.api.patch(
        f"/apis/rlhf.dev/v1alpha1/namespaces/{runs.namespace}/rlhfruns/tiny/status",
        {"status": {"iterations": iterations}},
        MERGE_PATCH,
    )


def status(runs: ClusterRuns) -> dict[str, Any]:
    return dict(runs.get().get("status") or {})


def until(runs: ClusterRuns, phase: str) -> None:
    try:
        wait_until(lambda: status(runs).get("phase") == phase, f"phase {phase}", seconds=240, every=0.2)
    except AssertionError as error:
        seen = status(runs)
        raise AssertionError(f"{error}; it is {seen.get('phase')}: {seen.get('message')}") from None


def here(runs: ClusterRuns, *words: str) -> Done:
    """rlhfctl of somebody whose context has another namespace."""
    environment = {"KUBECONFIG": str(runs.cluster.kubeconfig), "HOME": str(runs.folder), **ENVIRONMENT}
    return rlhfctl(*words, "-n", runs.namespace, cwd=runs.folder, env=environment)


def imported(runs: ClusterRuns, rows: list[Row], name: str = "a.csv", *, partial: bool = False) -> Done:
    file = write_answers(runs.folder / name, rows)
    more = ["--partial"] if partial else []
    return here(runs, "annotations", "import", "tiny", str(file), "--iteration", "1", *more)


@pytest.mark.usefixtures("paused")
def test_a_run_is_paused_its_questions_taken_out_and_its_answers_brought_in_until_it_ends(runs: ClusterRuns) -> None:
    shown = here(runs, "status", "tiny")
    assert "waits for people's answers" in " ".join(shown.out.split())
    [command] = [line.strip() for line in shown.out.splitlines() if "annotations export" in line and "`" not in line]
    assert f"-n {runs.namespace}" in command
    environment = {"KUBECONFIG": str(runs.cluster.kubeconfig), "HOME": str(runs.folder), **ENVIRONMENT}
    exported = rlhfctl(*shlex.split(command)[1:], cwd=runs.folder, env=environment)
    assert exported.code == 0, exported.err
    folder: Path = runs.folder / "tiny-questions-1"
    assert len((folder / "questions.jsonl").read_text().splitlines()) == len(PAIRS)
    with runs.following("wait", "tiny") as follow:
        follow.says("run 'tiny' is paused and waits for people's answers: rlhfctl annotations export tiny --iteration 1")
        done = imported(runs, ALL)
        assert done.code == 0, done.err
        assert "the answers to iteration 1 are imported; the operator carries it out" in " ".join(done.err.split())
        assert follow.ended().code == 0
    late = imported(runs, ALL[:-1], "late.csv")
    assert late.code == Exit.CONFLICT
    assert "has ended (Succeeded)" in " ".join(late.err.split())


def test_answers_that_come_while_no_operator_runs_are_taken_up_by_the_next(runs: ClusterRuns, paused: OperatorProcess) -> None:
    paused.kill()
    assert imported(runs, ALL).code == 0
    other = imported(runs, [(PAIRS[0], "eve", "B"), *ALL], "other.csv")
    assert other.code == Exit.CONFLICT
    assert "has other answers" in " ".join(other.err.split())
    assert "nothing is changed" in " ".join(imported(runs, [*reversed(ALL)], "again.csv").err.split())
    assert status(runs)["phase"] == "Paused"
    with OperatorProcess(runs.folder, runs.cluster.kubeconfig, [runs.namespace]) as operator:
        operator.wait_leading()
        until(runs, "Succeeded")


@pytest.mark.usefixtures("paused")
def test_answers_that_come_while_the_run_is_suspended_count_when_it_is_resumed(runs: ClusterRuns) -> None:
    assert here(runs, "suspend", "tiny").code == 0
    until(runs, "Suspended")
    assert imported(runs, ALL).code == 0
    assert here(runs, "resume", "tiny").code == 0
    until(runs, "Succeeded")


@pytest.mark.usefixtures("paused")
def test_a_run_that_waits_for_people_is_cancelled_at_once(runs: ClusterRuns) -> None:
    assert here(runs, "cancel", "tiny").code == 0
    until(runs, "Cancelled")
    assert imported(runs, ALL).code == Exit.CONFLICT
