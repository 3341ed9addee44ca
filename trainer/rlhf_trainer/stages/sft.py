"""sft: pi_0 from demonstrations. Loss on what the assistant says, its end included; several turns count each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhf_api.resource.data import DataSource
from rlhf_api.stage import SftWork, StageResult
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
    work = work_of(context, SftWork)
    job, vocabulary = new_job(context, ObjectiveName.SUPERVISED, work.policy, work.optimization, work.deepspeed)
    counts: dict[str, int] = {}
    examples: list[Example] = []
    for source, rows in zip(work.data, read_mixture(context, work.data), strict=True):
        examples += _conversations(source, rows, vocabulary, work.max_length, counts)
    base = work.policy.model.source.uri if work.policy.model.source is not None else None
    return train_and_seal(context, job, examples, vocabulary, Lineage(model_inputs(work.policy), iterate=0, base=base), counts)


def _conversations(
    source: DataSource, rows: Sequence[dict[str, Any]], vocabulary: Vocabulary, max_length: int, counts: dict[str, int]
) -> list[Example]:
    """Examples without a prompt of their own: every turn is in the one completion, and only what the assistant says is counted."""
    column = source.column or "messages"
    found = []
    unclear: chat.BoundaryProblem | None = None
    for number, row in enumerate(rows, start=1):
        where = f"{source.uri}: row {number}, column {column}"
        if column not in row:
            raise ConfigurationProblem(
                f"{where}: there is no such column (there are {', '.join(sorted(row))}). Set sft.data.column."
            )
        messages = as_messages(row[column], where)
        counts["conversations"] = counts.get("conversations", 0) + 1
        try:
            ids, counted = chat.encode_conversation(vocabulary.tokenizer, messages, vocabulary.stop_ids)
        except chat.BoundaryProblem as problem:
            # One answer may begin with what its tokenizer merges with the header before it. Were it the template, it would be all.
            counts["conversationsWithoutBoundary"] = counts.get("conversationsWithoutBoundary", 0) + 1
            unclear = problem
            continue
        if len(ids) > max_length:
            counts["conversationsTruncated"] = counts.get("conversationsTruncated", 0) + 1
            ids, counted = ids[:max_length], counted[:max_length]
        if not any(counted):
            counts["conversationsWithoutAnswer"] = counts.get("conversationsWithoutAnswer", 0) + 1
            continue
        found.append(Example([], [ids], [counted]))
    if unclear is not None and not found:
        raise unclear
    return found
