"""resolve: is the artifact of this fingerprint sealed? A CPU job's answer on behalf of the stage that would compute it."""

from __future__ import annotations

from rlhf_api.stage import ResolveWork, StageResult
from rlhf_store import find_artifact
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.result import remove_checkpoints, result_of


def run(context: StageContext) -> StageResult:
    """The target's StageResult, or one without an artifact when there is none. Raises StoreError when the store cannot say."""
    work = work_of(context, ResolveWork)
    sealed = find_artifact(context.store, work.kind, context.config.fingerprint)
    log.info("%s/%s is %s", work.kind, context.config.fingerprint[:12], "sealed" if sealed else "not there")
    if sealed is None:
        return StageResult(stage=work.target, attempt=context.config.execution.attempt)
    # The attempt that sealed it may have died of just that: nobody runs the stage again.
    remove_checkpoints(context.store, sealed.ref)
    return result_of(context.store, context.config, sealed, found=True)
