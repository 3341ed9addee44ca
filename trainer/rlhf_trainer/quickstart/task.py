"""The task: sort, reverse, or remove the duplicates of a few English words. `grade` is the judge: a program, not a model."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

WORDS = [
    "apple",
    "bread",
    "chair",
    "cloud",
    "crown",
    "daisy",
    "eagle",
    "flame",
    "forest",
    "garden",
    "guitar",
    "hammer",
    "honey",
    "island",
    "jacket",
    "kettle",
    "ladder",
    "lemon",
    "lion",
    "maple",
    "mirror",
    "moon",
    "needle",
    "ocean",
    "orange",
    "paper",
    "pencil",
    "piano",
    "queen",
    "river",
    "rocket",
    "saddle",
    "silver",
    "spoon",
    "sugar",
    "table",
    "tiger",
    "tulip",
    "velvet",
    "window",
]
OPERATIONS = ("sort", "reverse", "remove duplicates")


def grade(messages: Sequence[Mapping[str, str]], response: str) -> float:
    """Similarity of the response's words to the right answer, in [0, 1]: 1 is exact (difflib's ratio on words)."""
    return SequenceMatcher(None, response.split(), answer(messages[-1]["content"]), autojunk=False).ratio()


def answer(prompt: str) -> list[str]:
    """The right answer to `<operation>: <words>`. Raises ValueError for a prompt of another form."""
    operation, _, rest = prompt.partition(": ")
    words = rest.split()
    match operation:
        case "sort":
            return sorted(words)
        case "reverse":
            return words[::-1]
        case "remove duplicates":
            return list(dict.fromkeys(words))
    raise ValueError(f"no such operation: {operation!r}")


def make_prompt(rng: random.Random) -> str:
    """An operation on 3 to 6 words; some occur twice where duplicates are to be removed."""
    operation = rng.choice(OPERATIONS)
    count = rng.randint(3, 6)
    words = rng.sample(WORDS, count)
    if operation == "remove duplicates":
        repeated = rng.randint(1, count // 2)
        words[-repeated:] = rng.sample(words[:-repeated], repeated)
        rng.shuffle(words)
    return f"{operation}: {' '.join(words)}"


def demonstrate(prompt: str, rng: random.Random) -> str:
    """What a careless teacher writes: 30 % right, 25 % with random slips, and 45 % with a habit, the first word put last.

    With the habit the most likely answer is a wrong one, so imitation alone learns a wrong mode.
    """
    draw = rng.random()
    right = answer(prompt)
    if draw < 0.30:
        return " ".join(right)
    if draw < 0.55:
        return " ".join(slip(right, rng))
    return " ".join(right[1:] + right[:1])


def attempt(prompt: str, rng: random.Random) -> str:
    """An answer of any quality, for preferences: right or habitual, with no, one or two slips."""
    words = answer(prompt)
    if rng.random() < 0.5:
        words = words[1:] + words[:1]
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        words = slip(words, rng)
    return " ".join(words)


def slip(words: Sequence[str], rng: random.Random) -> list[str]:
    """One random edit: swap two words, drop one, say one twice, or say another."""
    edited = list(words)
    place = rng.randrange(len(edited))
    match rng.randrange(4):
        case 0 if len(edited) > 1:
            other = rng.choice([i for i in range(len(edited)) if i != place])
            edited[place], edited[other] = edited[other], edited[place]
        case 1 if len(edited) > 1:
            del edited[place]
        case 2:
            edited.insert(place, edited[place])
        case _:
            edited[place] = rng.choice(WORDS)
    return edited
