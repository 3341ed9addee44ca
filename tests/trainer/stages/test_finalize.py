"""finalize: what it removes, and what stays as it was. What of a chain goes is the core's to say (tests/core/plan/test_plan.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.evaluation import Selection
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import ArtifactRef, FinalizeWork, IterateRecord, ModelInput, ResolveWork
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import ArtifactWriter, Checkpoints, find_artifact, open_artifact, open_store, run_folder
from rlhf_trainer.models.folder import MASTER_FILE
from rlhf_trainer.stages import finalize, resolve
from support.stages import RUN, config_of, context_of

POLICY, LABELS, EVALUATION = ArtifactKind.POLICY, ArtifactKind.LABELS, ArtifactKind.EVALUATION


def sealed(storage: Storage, kind: ArtifactKind, letter: str) -> ArtifactRef:
    writer = ArtifactWriter(open_store(storage), kind, letter * 64)
    writer.add_bytes(b"{}", "config.json")
    if kind is POLICY:
        writer.add_bytes(b"fp32", MASTER_FILE)
    stage = {POLICY: StageName.TRAIN, LABELS: StageName.LABEL, EVALUATION: StageName.EVALUATE}[kind]
    return writer.seal(stage=stage, metrics={Metric.WIN_RATE_VS_INITIAL: MetricValue(value=0.5)}).ref


def checkpoint_of(storage: Storage, ref: ArtifactRef, scratch: Path) -> Checkpoints:
    """What a training leaves that dies after it has sealed its artifact."""
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "rank-0").write_text("state")
    checkpoints = Checkpoints(open_store(storage), ref.fingerprint)
    checkpoints.complete("step-1", 1, checkpoints.upload("step-1", scratch))
    return checkpoints


def work_of(best: ArtifactRef, others: list[ArtifactRef], evaluation: ArtifactRef, **retention: list[ArtifactRef]) -> FinalizeWork:
    iterates = [
        IterateRecord(iterate=number, policy=ModelInput(artifact=ref), evaluation=evaluation)
        for number, ref in enumerate([*others, best])
    ]
    return FinalizeWork(iterates=iterates, best=len(others), selection=Selection(), **retention)


def is_sealed(storage: Storage, ref: ArtifactRef) -> bool:
    return find_artifact(open_store(storage), ref.kind, ref.fingerprint) is not None


def test_it_removes_what_it_is_told_and_nothing_else(storage: Storage, tmp_path: Path) -> None:
    """Twice: an attempt may die anywhere in it."""
    first, best = sealed(storage, POLICY, "a"), sealed(storage, POLICY, "b")
    kept, gone, evaluation = sealed(storage, LABELS, "c"), sealed(storage, LABELS, "d"), sealed(storage, EVALUATION, "e")
    work = work_of(best, [first], evaluation, removed=[first, gone], without_masters=[best])
    for attempt in (1, 2):
        result = finalize.run(context_of(config_of(work, storage, iteration=None, attempt=attempt), tmp_path / "scratch"))
        assert result.counts == {"artifactsRemoved": 2}
        assert [is_sealed(storage, ref) for ref in (first, gone, best, kept, evaluation)] == [False, False, True, True, True]
    store = open_store(storage)
    assert not list(store.list(f"policy/{first.fingerprint}/"))
    assert json.loads(store.get(f"{run_folder(RUN)}/best.json"))["digest"] == best.digest
    folder = open_artifact(store, best).fetch(tmp_path / "best")
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["config.json"]


def test_it_removes_what_trainings_left_but_not_the_checkpoint_of_one_that_runs_again(storage: Storage, tmp_path: Path) -> None:
    """An artifact that an earlier attempt of finalize removed may be in the making again, for another run."""
    best, former, evaluation = sealed(storage, POLICY, "a"), sealed(storage, POLICY, "b"), sealed(storage, EVALUATION, "e")
    left, running = (checkpoint_of(storage, ref, tmp_path / "state") for ref in (best, former))
    open_store(storage).delete([f"policy/{former.fingerprint}/manifest.json"])
    work = work_of(best, [], evaluation, trained=[best, former], removed=[])
    finalize.run(context_of(config_of(work, storage, iteration=None), tmp_path / "scratch"))
    assert left.newest_complete() is None
    assert running.newest_complete() is not None


@pytest.mark.parametrize("how", ["found", "resolved"])
def test_who_finds_the_artifact_removes_what_the_attempt_before_it_left(storage: Storage, tmp_path: Path, how: str) -> None:
    ref = sealed(storage, POLICY, "a")
    left = checkpoint_of(storage, ref, tmp_path / "state")
    other = checkpoint_of(storage, ref.model_copy(update={"fingerprint": "b" * 64}), tmp_path / "state")
    config = config_of(ResolveWork(target=StageName.TRAIN, kind=POLICY), storage).model_copy(
        update={"fingerprint": ref.fingerprint}
    )
    if how == "resolved":
        result = resolve.run(context_of(config, tmp_path / "scratch"))
    else:
        work = work_of(ref, [], ref)
        # Of a configuration, `found` reads the stage and the fingerprint.
        config = config.model_copy(update={"work": work.model_copy(update={"stage": StageName.TRAIN})})
        result = context_of(config, tmp_path / "scratch").found() or pytest.fail("it is sealed")
    assert result.artifact == ref
    assert left.newest_complete() is None
    assert other.newest_complete() is not None


def test_a_stage_that_only_removes_imports_no_torch() -> None:
    """It is a CPU job beside the cluster's GPUs, and should be over in a second."""
    code = "import sys, rlhf_trainer.stages.finalize, rlhf_trainer.stages.resolve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
