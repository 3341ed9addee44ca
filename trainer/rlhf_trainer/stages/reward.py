"""reward: a Bradley-Terry or a pairwise model from preferences; the head of the first is new on a language model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rlhf_api.metrics import Metric
from rlhf_api.stage import PreferenceModelWork, RewardWork, StageResult
from rlhf_trainer.evaluation.comparisons import ComparisonFigures, compared_pairs, comparison_figures, scored_pairs
from rlhf_trainer.models.pair_format import answer_ids, asked_ids, question
from rlhf_trainer.models.questions import held_out_prompts
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.errors import ApplicationProblem
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.result import model_inputs
from rlhf_trainer.training.job import ObjectiveName
from rlhf_trainer.training.prepared.artifact import prepared
from rlhf_trainer.training.prepared.recipe import Recipe
from rlhf_trainer.training.stage import Lineage, Measured, new_job, train_and_seal

#: Asked about again under the export: turns, line breaks and blanks at every border of the format.
_TURNS = [
    {"role": "user", "content": "What is it? "},
    {"role": "assistant", "content": "A bird.\n"},
    {"role": "user", "content": "\nWhich one?"},
]
_RESPONSES = ("A tit.\n\n", " It is a wren.")


def run(context: StageContext) -> StageResult:
    return train_labeler(context, work_of(context, RewardWork))


def train_labeler(context: StageContext, work: PreferenceModelWork) -> StageResult:
    """The model that rewards, or the one that judges: they differ in what they are trained from, and by the seed of their stage."""
    pairwise = work.orders is not None
    objective = ObjectiveName.SUPERVISED if pairwise else ObjectiveName.BRADLEY_TERRY
    job, vocabulary = new_job(context, objective, work.base, work, classifier=not pairwise)
    recipe = Recipe.of(work, context.config.seed)
    data = prepared(context, recipe, vocabulary, lambda: held_out_prompts(context, work.held_out, vocabulary))
    job = job.model_copy(update={"new_head": not pairwise, "examples": str(data.file)})
    base = work.base.model.source.uri if work.base.model.source is not None else None
    lineage = Lineage(model_inputs(work.base), base=base, tokens=data.ref)
    measure: Callable[[Path], Measured | None] | None = None
    if pairwise:
        measure = partial(_asked_and_measured, data.held_out, vocabulary)
    elif data.held_out is not None:
        measure = partial(_measured, data.held_out)
    return train_and_seal(context, job, data.examples, vocabulary, lineage, dict(data.counts), measure)


def _measured(held_out: Path, export: Path) -> Measured:
    from rlhf_trainer.labelers.bradley_terry import BradleyTerryLabeler

    log.info("The model is measured by the pairs that are held out")
    return _told(comparison_figures(scored_pairs(held_out, BradleyTerryLabeler.load(export))))


def _asked_and_measured(held_out: Path | None, vocabulary: Vocabulary, export: Path) -> Measured | None:
    """None where nothing is held out. Raises ApplicationProblem where the labeler would ask by other tokens."""
    from rlhf_trainer.labelers.pairwise.labeler import PairwiseLabeler

    labeler = PairwiseLabeler.load(export)
    trained = asked_ids(vocabulary.chat, question(_TURNS, None, *_RESPONSES), vocabulary.tokenizer.bos_token_id)
    if labeler.asked_ids(_TURNS, *_RESPONSES) != trained or labeler.answers != answer_ids(vocabulary.tokenizer):
        raise ApplicationProblem(
            "The exported preference model would be asked by other tokens than it was trained on: its chat template or its "
            "tokenizer reads otherwise once it is saved. Nothing was sealed.",
            reason="ExportMismatch",
        )
    if held_out is None:
        return None
    log.info("The model is measured by the pairs that are held out")
    return _told(comparison_figures(compared_pairs(held_out, labeler)))


def _told(figures: ComparisonFigures) -> Measured:
    content = figures.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()
    return Measured("held_out.json", content, {Metric.HELD_OUT_REWARD_ACCURACY: figures.accuracy})
