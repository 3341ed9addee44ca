"""reward: a Bradley-Terry model from preferences; its head is new where it starts from a language model."""

from __future__ import annotations

from rlhf_api.stage import RewardWork, StageResult
from rlhf_trainer.models.questions import held_out_prompts
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.result import model_inputs
from rlhf_trainer.training.job import ObjectiveName
from rlhf_trainer.training.prepared.artifact import prepared
from rlhf_trainer.training.prepared.recipe import Recipe
from rlhf_trainer.training.stage import Lineage, new_job, train_and_seal


def run(context: StageContext) -> StageResult:
    work = work_of(context, RewardWork)
    job, vocabulary = new_job(context, ObjectiveName.BRADLEY_TERRY, work.base, work, classifier=True)
    recipe = Recipe.of(work, context.config.seed)
    data = prepared(context, recipe, vocabulary, lambda: held_out_prompts(context, work.held_out, vocabulary))
    job = job.model_copy(update={"new_head": True, "examples": str(data.file)})
    base = work.base.model.source.uri if work.base.model.source is not None else None
    lineage = Lineage(model_inputs(work.base), base=base, tokens=data.ref)
    return train_and_seal(context, job, data.examples, vocabulary, lineage, dict(data.counts))
