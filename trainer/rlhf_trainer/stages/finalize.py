"""finalize: name the best iterate, carry out retention. Only what this run made is removed, never what it only read."""

from __future__ import annotations

import json

from rlhf_api.stage import ArtifactRef, FinalizeWork, IterateRecord, StageResult
from rlhf_api.storage import RetentionPolicy
from rlhf_store import open_artifact, run_folder
from rlhf_store.artifact import artifact_folder, artifact_url, manifest_key

from ..narrow import present
from ..runtime import StageContext, log, work_of


def run(context: StageContext) -> StageResult:
    """Writes runs/…/best.json. Removal is in an order that leaves no half artifact: the manifest first."""
    work = work_of(context, FinalizeWork)
    best = next(record for record in work.iterates if record.iterate == work.best)
    _write_best(context, work, best)
    removed = 0
    if work.retention.samples is RetentionPolicy.DELETE:
        removed += _remove(context, work.data)
    if work.retention.checkpoints is not RetentionPolicy.RETAIN:
        others = [r.policy.artifact for r in work.iterates if r.iterate != work.best and r.policy.artifact is not None]
        removed += _remove(context, others)
    if work.retention.checkpoints is RetentionPolicy.DELETE and best.policy.artifact is not None:
        log.info("the best iterate is kept; retention.checkpoints: Delete removes all others and every training checkpoint")
    return StageResult(stage=context.config.stage, attempt=context.config.execution.attempt, counts={"artifactsRemoved": removed})


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


def _remove(context: StageContext, refs: list[ArtifactRef]) -> int:
    store = context.store
    for ref in refs:
        store.delete([manifest_key(ref.kind, ref.fingerprint)])
        store.delete([info.key for info in store.list(f"{artifact_folder(ref.kind, ref.fingerprint)}/")])
    return len(refs)
