"""sft: pi_0 from demonstrations. Loss on what the assistant says, its end included; several turns count each."""

from __future__ import annotations

from rlhf_api.stage import SftWork, StageResult
from rlhf_trainer.models.questions import held_out_prompts
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.result import model_inputs
from rlhf_trainer.training.job import ObjectiveName
from rlhf_trainer.training.prepared.artifact import prepared
from rlhf_trainer.training.prepared.recipe import Recipe
from rlhf_trainer.training.stage import Lineage, new_job, train_and_seal


def run(context: StageContext) -> StageResult:
    work = work_of(context, SftWork)
    job, vocabulary = new_job(context, ObjectiveName.SUPERVISED, work.policy, work)
    recipe = Recipe.of(work, context.config.seed)
    data = prepared(context, recipe, vocabulary, lambda: held_out_prompts(context, work.held_out, vocabulary))
    job = job.model_copy(update={"examples": str(data.file)})
    base = work.policy.model.source.uri if work.policy.model.source is not None else None
    lineage = Lineage(model_inputs(work.policy), iterate=0, base=base, tokens=data.ref)
    return train_and_seal(context, job, data.examples, vocabulary, lineage, dict(data.counts))
