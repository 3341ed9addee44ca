"""reward: a Bradley-Terry model from preferences; its head is new where it starts from a language model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rlhf_api.metrics import Metric
from rlhf_api.stage import BradleyTerryWork, RewardWork, StageResult
from rlhf_trainer.evaluation.comparisons import comparison_figures, scored_pairs
from rlhf_trainer.models.questions import held_out_prompts
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.result import model_inputs
from rlhf_trainer.training.job import ObjectiveName
from rlhf_trainer.training.prepared.artifact import prepared
from rlhf_trainer.training.prepared.recipe import Recipe
from rlhf_trainer.training.stage import Lineage, Measured, new_job, train_and_seal


def run(context: StageContext) -> StageResult:
    return train_labeler(context, work_of(context, RewardWork))


def train_labeler(context: StageContext, work: BradleyTerryWork) -> StageResult:
    """The model that rewards, or the one that judges: they differ in what they are trained from, and by the seed of their stage."""
    job, vocabulary = new_job(context, ObjectiveName.BRADLEY_TERRY, work.base, work, classifier=True)
    recipe = Recipe.of(work, context.config.seed)
    data = prepared(context, recipe, vocabulary, lambda: held_out_prompts(context, work.held_out, vocabulary))
    job = job.model_copy(update={"new_head": True, "examples": str(data.file)})
    base = work.base.model.source.uri if work.base.model.source is not None else None
    lineage = Lineage(model_inputs(work.base), base=base, tokens=data.ref)
    measure = None if data.held_out is None else partial(_measured, data.held_out)
    return train_and_seal(context, job, data.examples, vocabulary, lineage, dict(data.counts), measure)


def _measured(held_out: Path, export: Path) -> Measured:
    from rlhf_trainer.labelers.bradley_terry import BradleyTerryLabeler

    log.info("The model is measured by the pairs that are held out")
    figures = comparison_figures(scored_pairs(held_out, BradleyTerryLabeler.load(export)))
    content = figures.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()
    return Measured("held_out.json", content, {Metric.HELD_OUT_REWARD_ACCURACY: figures.accuracy})
