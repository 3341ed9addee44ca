"""sft: pi_0 from demonstrations. Loss on what the assistant says, its end included; several turns count each."""

from __future__ import annotations

from rlhf_api.stage import SftWork, StageResult
from rlhf_trainer.data.examples import Example
from rlhf_trainer.data.layouts import read_demonstrations
from rlhf_trainer.data.mixtures import read_mixture
from rlhf_trainer.models.encoding import encode_demonstrations
from rlhf_trainer.models.questions import held_out_prompts
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.result import model_inputs
from rlhf_trainer.training.job import ObjectiveName
from rlhf_trainer.training.stage import Lineage, new_job, train_and_seal


def run(context: StageContext) -> StageResult:
    work = work_of(context, SftWork)
    job, vocabulary = new_job(context, ObjectiveName.SUPERVISED, work.policy, work.optimization, work.deepspeed)
    counts: dict[str, int] = {}
    held_out = held_out_prompts(context, work.held_out, vocabulary)
    examples: list[Example] = []
    for items, tally in read_mixture(context, work.data, read_demonstrations, "sft.data"):
        examples += encode_demonstrations(items, tally, vocabulary, work.max_length, counts, held_out)
        tally.report(counts)
    base = work.policy.model.source.uri if work.policy.model.source is not None else None
    return train_and_seal(context, job, examples, vocabulary, Lineage(model_inputs(work.policy), iterate=0, base=base), counts)
