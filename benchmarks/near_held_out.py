"""What does it cost to find near duplicates of held-out prompts? `python benchmarks/near_held_out.py`

20,000 held-out prompts and 100,000 training prompts of about 50 words, of three kinds: words by Zipf's law; behind a preamble that
all share; and exercises of forty forms, which differ in four words, so that each is a candidate for what has its form. One in a
hundred training prompts is a held-out one with one word changed.

Prints for each kind seconds to index and to compare, what was found, and by how many MB the process has grown. Some minutes.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections.abc import Callable
from itertools import accumulate

from rlhf_trainer.data.held_out import HeldOutPrompts
from rlhf_trainer.data.prompts import Prompt, PromptSets, prompt_id

WORDS = [f"word{number}" for number in range(30_000)]
ZIPF = list(accumulate(1 / (rank + 1) for rank in range(len(WORDS))))
Make = Callable[[random.Random], list[str]]


def plain(chance: random.Random) -> list[str]:
    return chance.choices(WORDS, cum_weights=ZIPF, k=50)


PREAMBLE = plain(random.Random("preamble"))
FORMS = [plain(random.Random(f"form {number}")) for number in range(40)]


def behind_a_preamble(chance: random.Random) -> list[str]:
    return PREAMBLE + chance.choices(WORDS, cum_weights=ZIPF, k=20)


def exercise(chance: random.Random) -> list[str]:
    words = list(chance.choice(FORMS))
    for place in (5, 17, 29, 41):
        words[place] = str(chance.randrange(100_000))
    return words


KINDS: dict[str, Make] = {"plain": plain, "behind a preamble": behind_a_preamble, "exercises": exercise}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=int, default=20_000)
    parser.add_argument("--training", type=int, default=100_000)
    options = parser.parse_args()
    for name, make in KINDS.items():
        chance = random.Random(0)
        held = [make(chance) for _ in range(options.held_out)]
        training = [make(chance) for _ in range(options.training)]
        for place in range(0, options.training, 100):
            training[place] = list(chance.choice(held))
            training[place][-10] = "changed"
        asked = [({"role": "user", "content": " ".join(words)},) for words in training]
        sets = PromptSets(
            tuple(Prompt(str(n), ({"role": "user", "content": " ".join(words)},)) for n, words in enumerate(held)), (), ()
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        held_out = HeldOutPrompts(sets, prompt_id)
        held_out.near(asked[1])
        indexed = time.perf_counter()
        found = sum(held_out.near(messages) is not None for messages in asked)
        ended = time.perf_counter()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"{name:20} index {indexed - began:5.1f} s  compare {ended - indexed:5.1f} s  near {found} of {options.training}  "
            f"{grown:5.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
