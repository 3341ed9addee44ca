"""reward: a Bradley-Terry model from preferences; its head is new where it starts from a language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rlhf_api.resource.data import DataSource
from rlhf_api.stage import RewardWork, StageResult
from rlhf_trainer.data.examples import Example
from rlhf_trainer.data.messages import as_messages
from rlhf_trainer.data.mixtures import read_mixture
from rlhf_trainer.models import chat
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.result import model_inputs
from rlhf_trainer.training.job import ObjectiveName
from rlhf_trainer.training.stage import Lineage, new_job, train_and_seal


def run(context: StageContext) -> StageResult:
    work = work_of(context, RewardWork)
    job, vocabulary = new_job(context, ObjectiveName.BRADLEY_TERRY, work.base, work.optimization, work.deepspeed)
    job = job.model_copy(update={"new_head": True})
    counts: dict[str, int] = {}
    examples: list[Example] = []
    for source, rows in zip(work.data, read_mixture(context, work.data), strict=True):
        examples += _pairs(source, rows, vocabulary, work, counts)
    base = work.base.model.source.uri if work.base.model.source is not None else None
    return train_and_seal(context, job, examples, vocabulary, Lineage(model_inputs(work.base), base=base), counts)


def _pairs(
    source: DataSource, rows: Sequence[dict[str, Any]], vocabulary: Vocabulary, work: RewardWork, counts: dict[str, int]
) -> list[Example]:
    """Cleaned as the paper's report has it: equal responses and scores go, too small margins go, each counted."""
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"{source.uri}: row {number}"
        if "chosen" not in row or "rejected" not in row:
            raise ConfigurationProblem(
                f"{where}: preferences need columns chosen and rejected (there are {', '.join(sorted(row))})."
            )
        chosen, rejected = as_messages(row["chosen"], f"{where}, chosen"), as_messages(row["rejected"], f"{where}, rejected")
        counts["pairsRead"] = counts.get("pairsRead", 0) + 1
        reason = _reason_to_drop(chosen, rejected, _margin(row, where), work.min_margin)
        if reason is None:
            example = _encode(vocabulary, chosen, rejected)
            if len(example.prompt) + max(map(len, example.completions)) > work.max_length:
                # The head reads the last token: a cut pair would be scored where nothing has ended.
                reason = "pairsOverlong"
            else:
                found.append(example)
        if reason is not None:
            counts[reason] = counts.get(reason, 0) + 1
    return found


def _margin(row: dict[str, Any], where: str) -> float | None:
    """Of the scores, where the row has both. Raises ConfigurationProblem where one is no number that can be compared."""
    for column in ("chosen_score", "rejected_score"):
        value = row.get(column)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)):
            raise ConfigurationProblem(
                f"{where}, column {column}: {value!r} is no finite number. Write one, or null where the pair has no score."
            )
    if row.get("chosen_score") is None or row.get("rejected_score") is None:
        return None
    return float(row["chosen_score"] - row["rejected_score"])


def _reason_to_drop(chosen: Sequence[Any], rejected: Sequence[Any], margin: float | None, min_margin: float) -> str | None:
    if chosen[:-1] != rejected[:-1] or chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        return "pairsOfDifferentPrompts"
    if chosen[-1]["content"] == rejected[-1]["content"]:
        return "pairsEqual"
    if margin is not None:
        if margin <= 0:
            return "pairsTied"
        if margin <= min_margin:
            return "pairsBelowMargin"
    return None


def _encode(vocabulary: Vocabulary, chosen: Sequence[Any], rejected: Sequence[Any]) -> Example:
    """Where an answer's first token takes the end of the prompt in (two newlines are one token), the prompt ends before it."""
    sides = [chat.encode_exchange(vocabulary.tokenizer, side[:-1], side[-1]["content"]) for side in (chosen, rejected)]
    shared = min(len(prompt) for prompt, _ in sides)
    return Example(sides[0][0][:shared], [prompt[shared:] + answer for prompt, answer in sides])
