"""The frozen columns of the data artifacts, and those of ids as what they are: four bytes a token."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa

from rlhf_api.stage import PromptIdentity, PromptSlice

_IDS = pa.list_(pa.int32())
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

SAMPLES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt_ids", _IDS),
        ("messages", MESSAGES),
        ("completion_index", pa.int32()),
        ("completion_ids", _IDS),
        ("text", pa.string()),
        ("logps", pa.list_(pa.float32())),
        ("finish_reason", pa.string()),
        ("iterate", pa.int32()),
        ("temperature", pa.float32()),
        ("template_hash", pa.string()),
    ]
)

#: Behind the columns of samples and evaluation where prompts of the run have tools: JSON text, null for a prompt without.
TOOLS = pa.field("tools", pa.string())

#: Behind the columns of samples where the source of prompts names a column of reference answers; null for a prompt without.
ANSWER = pa.field("answer", pa.string())

#: One row a pair of responses that people are asked about. response_a is shown first; the indexes are of the prompt's completions.
QUESTIONS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        TOOLS,
        ("response_a", pa.string()),
        ("response_b", pa.string()),
        ("index_a", pa.int32()),
        ("index_b", pa.int32()),
    ]
)

LABELS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("chosen_index", pa.int32()),
        ("rejected_index", pa.int32()),
        ("chosen_ids", _IDS),
        ("rejected_ids", _IDS),
        ("prompt_ids", _IDS),
        ("chosen_score", pa.float32()),
        ("rejected_score", pa.float32()),
        ("scores", pa.list_(pa.float32())),
        ("iteration", pa.int32()),
    ]
)

REFERENCE_LOGPS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("chosen_index", pa.int32()),
        ("rejected_index", pa.int32()),
        ("chosen_logps", pa.float32()),
        ("rejected_logps", pa.float32()),
        ("chosen_tokens", pa.int32()),
        ("rejected_tokens", pa.int32()),
    ]
)

#: One row a response of an iterate to a held-out prompt. `set`: validation or test; `decoding`: sampled, unbiased (temperature 1
#: without top-p or top-k, for klToInitial) or greedy.
EVALUATION = pa.schema(
    [
        ("set", pa.string()),
        ("decoding", pa.string()),
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("prompt_ids", _IDS),
        ("completion_ids", _IDS),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("judge_score", pa.float64()),
        ("reward_score", pa.float64()),
    ]
)


class Lists:
    """A column of lists of ids; each is made when it is asked for, by its row."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._chunks = [(chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in column.chunks]
        self._ends = list(accumulate(len(chunk) for chunk in column.chunks))

    def __getitem__(self, row: int) -> list[int]:
        number = bisect_right(self._ends, row)
        offsets, values = self._chunks[number]
        place = row - (self._ends[number - 1] if number else 0)
        found: list[int] = values[offsets[place] : offsets[place + 1]].tolist()
        return found


def with_tools(schema: pa.Schema, identity: PromptIdentity) -> pa.Schema:
    return schema.append(TOOLS) if identity is PromptIdentity.RENDERED_WITH_TOOLS else schema


def samples_schema(prompts: PromptSlice) -> pa.Schema:
    """The columns of samples of these prompts."""
    schema = with_tools(SAMPLES, prompts.identity)
    return schema if prompts.prompts.source.answer_column is None else schema.append(ANSWER)


def tools_text(tools: Sequence[Any] | None) -> str | None:
    """As the column has them; `tools_of` reads it."""
    return None if tools is None else json.dumps(tools, ensure_ascii=False)
