"""What do rendering and finding answers add to tokenising? `python benchmarks/data_layer.py`

Conversations of one and of three turns, and pairs, are made of Mistral's own vocabulary of 131,072 tokens (mistral_common), about
a thousand tokens each, and about as many as a process of preflight is given at a time. Each round times, one after the other and in
an order of its own, the data layer's whole way from messages to ids and to what the loss counts, and the yardstick: the bare
`encode_batch` of the same tokenizer on the very same texts, in one process, too.

Prints for each kind the median over the rounds of the ratio of the two, its smallest and largest, and milliseconds an example. Two
minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from rlhf_trainer.data.messages import Message
from rlhf_trainer.models.chat import Chat
from rlhf_trainer.models.vocabulary import Vocabulary
from support.tekken import tekken
from support.vocabularies import vocabulary

WORDS = 700


@dataclass(frozen=True)
class Kind:
    name: str
    ours: Callable[[Vocabulary, Sequence[list[Message]]], object]
    turns: int
    #: The texts of it that the yardstick tokenises: two sides have their prompt twice.
    texts: Callable[[Chat, list[Message]], list[str]]


def whole(chat: Chat, messages: list[Message]) -> list[str]:
    return [chat.template.text(chat.template.guard(messages), ask=False)]


def pair_texts(chat: Chat, messages: list[Message]) -> list[str]:
    return whole(chat, messages) + whole(chat, [*messages[:-1], {**messages[-1], "content": messages[-1]["content"][::-1]}])


def encode_pairs(under: Vocabulary, rows: Sequence[list[Message]]) -> object:
    answers = [(row[-1], {**row[-1], "content": row[-1]["content"][::-1]}) for row in rows]
    drafts = [under.chat.exchange(row[:-1], answer) for row, each in zip(rows, answers, strict=True) for answer in each]
    under.chat.read_ahead(drafts)
    return [under.chat.sides(draft) for draft in drafts]


def encode_conversations(under: Vocabulary, rows: Sequence[list[Message]]) -> object:
    drafts = [draft for row in rows for draft in under.chat.conversation(row)]
    under.chat.read_ahead(drafts)
    return [under.chat.answered(draft, under.stop_ids) for draft in drafts]


KINDS = [
    Kind("one turn", encode_conversations, 1, whole),
    Kind("three turns", encode_conversations, 3, whole),
    Kind("pair", encode_pairs, 1, pair_texts),
]


def conversation(words: Sequence[str], turns: int, chance: random.Random) -> list[Message]:
    def said(count: int) -> str:
        return " ".join(chance.choices(words, k=count))

    each = WORDS // (2 * turns)
    return [{"role": role, "content": said(each)} for _ in range(turns) for role in ("user", "assistant")]


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    under = vocabulary(tekken())
    backend = under.tokenizer.backend_tokenizer
    chance = random.Random(0)
    words = [under.tokenizer.decode([token]).strip() or "x" for token in range(2000, 30000)]
    for kind in KINDS:
        rows = [conversation(words, kind.turns, chance) for _ in range(options.examples)]
        texts = [text for row in rows for text in kind.texts(under.chat, row)]
        tokens = sum(len(encoding.ids) for encoding in backend.encode_batch(texts, add_special_tokens=False))
        ratios, ours = [], []
        for number in range(options.rounds):
            timed: dict[str, float] = {}
            works: dict[str, Callable[[], object]] = {
                "ours": partial(kind.ours, under, rows),
                "bare": partial(backend.encode_batch, texts, add_special_tokens=False),
            }
            for name in sorted(works, reverse=bool(number % 2)):
                timed[name] = seconds(works[name])
            ratios.append(timed["ours"] / timed["bare"])
            ours.append(1000 * timed["ours"] / options.examples)
        print(
            f"{kind.name:12} {tokens // options.examples:5d} tokens  ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})  {statistics.median(ours):.2f} ms an example",
            flush=True,
        )


if __name__ == "__main__":
    main()
