"""Which pairs of a prompt's responses people are asked about. Pure."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from rlhf_trainer.runtime.seeds import hashed_seed


@dataclass(frozen=True)
class Question:
    """Completion indexes, as they are shown."""

    a: int
    b: int


def draw_questions(texts: Mapping[int, str], pairs: int, seed: int, iteration: int, prompt_id: str) -> list[Question]:
    """At most `pairs` of different responses, each in an order of its own. `texts`: responses by completion index.

    Equal texts are one response, the earliest: who is shown the same twice has nothing to say.
    """
    first: dict[str, int] = {}
    for index in sorted(texts):
        first.setdefault(texts[index], index)
    every = list(combinations(first.values(), 2))
    rng = random.Random(hashed_seed(seed, iteration, prompt_id, "ask"))
    # People prefer what they read first: which one that is must not go by the order of sampling.
    return [Question(*rng.sample(pair, 2)) for pair in rng.sample(every, min(pairs, len(every)))]


def pair_id(asked: str, prompt_id: str, question: Question) -> str:
    """Of one question among all that anybody is ever asked: 32 hex digits. `asked`: the fingerprint of its questions."""
    return hashlib.sha256(f"{asked}/{prompt_id}/{question.a}/{question.b}".encode()).hexdigest()[:32]
