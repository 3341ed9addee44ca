"""finalize: name the best iterate, carry out retention. Only what this run made is removed, never what it only read."""

from __future__ import annotations

import json

from rlhf_api.stage import ArtifactRef, FinalizeWork, IterateRecord, StageResult
from rlhf_store import Store, artifact_folder, artifact_url, find_artifact, manifest_key, open_artifact, remove_files, run_folder
from rlhf_trainer.models.folder import MASTER_FILE
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.narrow import present
from rlhf_trainer.runtime.result import remove_checkpoints


def run(context: StageContext) -> StageResult:
    """Writes runs/…/best.json. Removal is in an order that leaves no half artifact: the manifest first."""
    work = work_of(context, FinalizeWork)
    best = next(record for record in work.iterates if record.iterate == work.best)
    _write_best(context, work, best)
    for ref in work.trained:
        # One that is not sealed any more may be in training again, for another run.
        if find_artifact(context.store, ref.kind, ref.fingerprint) is not None:
            remove_checkpoints(context.store, ref)
    for ref in work.removed:
        _remove(context.store, ref)
    for ref in work.without_masters:
        remove_files(open_artifact(context.store, ref), [MASTER_FILE])
    log.info("%d artifacts removed", len(work.removed))
    counts = {"artifactsRemoved": len(work.removed)}
    return StageResult(stage=context.config.stage, attempt=context.config.execution.attempt, counts=counts)


def _write_best(context: StageContext, work: FinalizeWork, best: IterateRecord) -> None:
    artifact = best.policy.artifact
    lineage = [
        {
            "iterate": record.iterate,
            "discarded": record.discarded,
            "policy": _where(context, record),
            "evaluation": artifact_url(context.store, record.evaluation.kind, record.evaluation.fingerprint),
            "metrics": {str(k): v.to_wire() for k, v in open_artifact(context.store, record.evaluation).manifest.metrics.items()},
        }
        for record in work.iterates
    ]
    content = {
        "best": work.best,
        "selection": work.selection.to_wire(),
        "checkpoint": _where(context, best),
        "digest": artifact.digest if artifact else None,
        "iterates": lineage,
    }
    context.store.put(f"{run_folder(context.config.run)}/best.json", json.dumps(content, indent=1).encode())
    log.info("the best iterate is pi_%d", work.best)


def _where(context: StageContext, record: IterateRecord) -> str:
    if record.policy.artifact is not None:
        return artifact_url(context.store, record.policy.artifact.kind, record.policy.artifact.fingerprint)
    return present(record.policy.source, "the iterate's source").uri


def _remove(store: Store, ref: ArtifactRef) -> None:
    store.delete([manifest_key(ref.kind, ref.fingerprint)])
    store.delete([info.key for info in store.list(f"{artifact_folder(ref.kind, ref.fingerprint)}/")])
