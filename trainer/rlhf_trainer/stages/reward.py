"""reward: a Bradley-Terry model from preferences; its head is new where it starts from a language model."""

from __future__ import annotations

from rlhf_api.stage import RewardWork, StageResult
from rlhf_trainer.data.examples import Example
from rlhf_trainer.data.layouts import read_preferences
from rlhf_trainer.data.mixtures import read_mixture
from rlhf_trainer.models.encoding import encode_preferences
from rlhf_trainer.models.questions import held_out_prompts
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.result import model_inputs
from rlhf_trainer.training.job import ObjectiveName
from rlhf_trainer.training.stage import Lineage, new_job, train_and_seal


def run(context: StageContext) -> StageResult:
    work = work_of(context, RewardWork)
    job, vocabulary = new_job(context, ObjectiveName.BRADLEY_TERRY, work.base, work.optimization, work.deepspeed, classifier=True)
    job = job.model_copy(update={"new_head": True})
    counts: dict[str, int] = {}
    held_out = held_out_prompts(context, work.held_out, vocabulary)
    examples: list[Example] = []
    for items, tally in read_mixture(context, work.data, read_preferences, "reward.bradleyTerry.train.data"):
        examples += encode_preferences(items, tally, vocabulary, work.max_length, work.min_margin, counts, held_out)
        tally.report(counts)
    base = work.base.model.source.uri if work.base.model.source is not None else None
    return train_and_seal(context, job, examples, vocabulary, Lineage(model_inputs(work.base), base=base), counts)
