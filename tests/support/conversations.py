"""Conversations as rows, and as the examples that are made of them under a family's template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhf_api.resource.data import DataSource
from rlhf_trainer.data.examples import Example
from rlhf_trainer.data.layouts import demonstrations_of, preferences_of
from rlhf_trainer.data.messages import Message, Tools
from rlhf_trainer.models.chat import Answered, Chat
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.training.prepared.encoding import Comparison, encode_demonstrations, encode_preferences
from rlhf_trainer.training.prepared.recipe import whole
from support.vocabularies import CHATML, GEMMA, LLAMA3, template, tokenizer, vocabulary

SOURCE = DataSource(name="d", uri="file:///d.jsonl", max_unusable_rows=0.5)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def llama3(**more: Any) -> Vocabulary:
    return vocabulary(tokenizer(LLAMA3, template("llama3"), bos=LLAMA3[0], eos=LLAMA3[4], **more))


def qwen2_5() -> Vocabulary:
    return vocabulary(tokenizer(CHATML, template("qwen2_5"), eos="<|im_end|>"))


def qwen3() -> Vocabulary:
    return vocabulary(tokenizer(CHATML, template("qwen3"), eos="<|im_end|>", plain=("<think>", "</think>")))


def gemma() -> Vocabulary:
    return vocabulary(tokenizer(GEMMA, template("gemma"), bos="<bos>", eos="<eos>"))


def answered(chat: Chat, turns: Sequence[Message], stop_ids: frozenset[int] = frozenset()) -> Answered:
    """Of a conversation that is one example."""
    [draft] = chat.conversation(turns)
    return chat.answered(draft, stop_ids)


def sides(chat: Chat, turns: Sequence[Message], tools: Tools = None) -> tuple[list[int], list[int]]:
    """Ids in front of the last turn, and of it."""
    return chat.sides(chat.exchange(turns[:-1], turns[-1], tools))


def demonstrations(
    rows: Sequence[dict[str, Any]], under: Vocabulary, counts: dict[str, int] | None = None, max_length: int = 4096
) -> list[Example]:
    items, tally = demonstrations_of(SOURCE, rows, "sft.data").read(rows)
    counts = {} if counts is None else counts
    examples = encode_demonstrations(items, tally, under, max_length, counts)
    tally.require_usable()
    tally.report(counts)
    return examples


def preferences(rows: Sequence[dict[str, Any]], under: Vocabulary, counts: dict[str, int] | None = None) -> list[Example]:
    items, tally = preferences_of(SOURCE, rows, "reward.bradleyTerry.train.data").read(rows)
    examples = encode_preferences(items, tally, under, Comparison(whole(4096)), {} if counts is None else counts)
    tally.require_usable()
    return examples


def counted_text(under: Vocabulary, example: Example) -> str:
    assert example.counted is not None
    pairs = zip(example.completions[0], example.counted[0], strict=True)
    return str(under.tokenizer.decode([token for token, counts in pairs if counts]))
