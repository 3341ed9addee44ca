"""Preferences to the questions that a pairwise preference model is trained on: which of two responses is better, A or B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from rlhf_api.conventions.canonical import canonical_json
from rlhf_api.resource.labeler import PairOrders
from rlhf_trainer.data.examples import Example, to_batch
from rlhf_trainer.data.held_out import HeldOutPrompts, Overlap
from rlhf_trainer.data.layouts import Preference
from rlhf_trainer.data.messages import Message
from rlhf_trainer.data.rows import Tally
from rlhf_trainer.models.pair_format import answer_ids, asked_ids, question
from rlhf_trainer.models.templates import TemplateRefusal
from rlhf_trainer.models.vocabulary import Vocabulary

from .encoding import count, is_held_out, is_untemplated, reason_to_drop, refusing
from .selection import Keyed, keyed

#: What of a message the question has; `train` is of demonstrations.
_READ = frozenset({"role", "content", "train"})


@dataclass(frozen=True)
class Asked:
    """A pair in both orders, as the labeler asks about it. The answer to `chosen_first` is A, that to `rejected_first` is B.

    drawn: which of the two is trained on where one is: 0 or 1, in that order. lengths: tokens of chosen and rejected.
    """

    chosen_first: Example
    rejected_first: Example
    drawn: int
    lengths: tuple[int, int]

    @property
    def both(self) -> tuple[Example, Example]:
        return self.chosen_first, self.rejected_first


def encode_questions(
    items: Sequence[Preference],
    tally: Tally,
    vocabulary: Vocabulary,
    max_length: int,
    seed: int,
    min_margin: float,
    counts: dict[str, int],
    held_out: HeldOutPrompts | None = None,
    overlap: Overlap | None = None,
) -> list[Asked]:
    """Cleaned and counted as pairs of a reward model are. max_length: of a question with its answer, in tokens.

    Raises ConfigurationProblem where the tokenizer has no tokens for A and B.
    """
    answers = answer_ids(vocabulary.tokenizer)
    found: list[Asked] = []
    for item in items:
        count(counts, "pairsRead")
        turns = [*item.prompt, item.chosen, item.rejected]
        if not is_untemplated(turns, item.row, tally, vocabulary.chat):
            continue
        if is_held_out(item, tally.place(item.row), held_out, overlap, counts):
            continue
        if (reason := reason_to_drop(item, min_margin)) is not None:
            count(counts, reason)
            continue
        with refusing(tally, item.row):
            asked = _asked(item, turns, vocabulary, answers, seed, counts)
            if asked is None:
                continue
            # Of both orders, so that no seed decides whether a pair is used.
            if max(example.longest for example in asked.both) > max_length:
                count(counts, "pairsOverlong")
                continue
            found.append(asked)
    return found


def examples_of(asked: Sequence[Asked], orders: PairOrders) -> list[Example]:
    """What is trained on of them."""
    both = orders is PairOrders.BOTH
    return [example for pair in asked for example in (pair.both if both else (pair.both[pair.drawn],))]


def with_question_keys(
    asked: Sequence[Asked], source: str, items: Sequence[Preference], tally: Tally, rows: Mapping[int, Any], orders: PairOrders
) -> pa.RecordBatch:
    """Both orders of each, side by side, with columns as CANDIDATES has them. rows: of the items, by number."""
    by_row = {item.row: item for item in items}
    found: list[Keyed] = []
    for pair in asked:
        # A pair is told by its two questions: the same two, in turns, whichever response is chosen.
        sides = [example.prompt for example in pair.both]
        for number, example in enumerate(pair.both):
            trained = orders is PairOrders.BOTH or number == pair.drawn
            found.append(Keyed(example.row or 0, sides, trained, pair.lengths))
    batch = to_batch([example for pair in asked for example in pair.both], source)
    return keyed(batch, found, by_row, tally, rows)


def _asked(
    item: Preference,
    turns: Sequence[Message],
    vocabulary: Vocabulary,
    answers: tuple[int, int],
    seed: int,
    counts: dict[str, int],
) -> Asked | None:
    """None, and counted, where the two are one to the model."""
    if any(turn.get("tool_calls") for turn in turns):
        raise TemplateRefusal("The format of pairwise preference models has no place for tool calls.")
    for name in sorted({name for turn in turns for name in turn} - _READ):
        count(counts, f"notRendered/{name}")
    chosen, rejected = item.chosen["content"], item.rejected["content"]
    if chosen == rejected:
        count(counts, "pairsEqual")
        return None
    chat, bos = vocabulary.chat, vocabulary.tokenizer.bos_token_id
    examples = []
    for (first, second), answer in zip(((chosen, rejected), (rejected, chosen)), answers, strict=True):
        ids = asked_ids(chat, question(item.prompt, item.tools, first, second), bos)
        chat.require_known(ids)
        examples.append(Example(ids, [[answer]], margin=item.margin, row=item.row))
    if examples[0].prompt == examples[1].prompt:
        count(counts, "pairsEqual")
        return None
    lengths = [len(vocabulary.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (chosen, rejected)]
    return Asked(examples[0], examples[1], _drawn(item, seed), (lengths[0], lengths[1]))


def _drawn(item: Preference, seed: int) -> int:
    """0: the chosen response stands first. By a hash that does not know which is chosen, so that nothing but chance is to learn."""
    chosen, rejected = str(item.chosen["content"]), str(item.rejected["content"])
    turns = [[message["role"], message["content"]] for message in item.prompt]
    drawn = blake2b(canonical_json({"turns": turns, "responses": sorted((chosen, rejected)), "seed": seed}), digest_size=8)
    return (drawn.digest()[0] & 1) ^ (chosen > rejected)
