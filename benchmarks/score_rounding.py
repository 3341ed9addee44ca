"""How far apart are a real reward model's scores of one response, computed in other company? `python benchmarks/score_rounding.py`

Shards change no bit of a score (ADR 0020). Another kind of GPU, another number of threads or another packing may: this measures
what that is worth, in fp32 and in bf16. The trunk is SmolLM2-135M-Instruct (tests/support/smollm2.py makes it). Its head is learnt
here, by Bradley-Terry, from documentation strings of Python: right is the beginning of the function's own, wrong that of another's,
or its own words in another order. Other functions' strings are then scored: each answer alone in its row; as the labeler packs a
prompt's answers; and with those of other prompts in long rows.

Prints for each dtype the largest and the 99th percentile of the differences between any two of the three, beside the spread of the
scores of a prompt (their standard deviation, the mean over prompts), and the share of prompts whose best or worst answer becomes
another one. Ten minutes.
"""

from __future__ import annotations

import argparse
import builtins
import inspect
import itertools
import os
import random
import re
import statistics
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch

from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.rewards import completion_rewards
from rlhf_trainer.forward.rows import Packing, build_batch, micro_batches
from rlhf_trainer.models.chat import Chat
from rlhf_trainer.models.loading import new_reward_model
from rlhf_trainer.models.vocabulary import load_vocabulary
from support import smollm2
from support.conversations import assistant, sides, user

ANSWERS = 6
WORDS = 60
EPOCHS = 200


def documented() -> Iterator[tuple[str, str]]:
    """A name, and the first words of what is written of it."""
    for module in (builtins, os, re, random, itertools, inspect, statistics, types):
        for name, value in sorted(vars(module).items()):
            words = (inspect.getdoc(value) or "").split() if callable(value) and not name.startswith("_") else []
            if len(words) >= WORDS // 2:
                yield f"{module.__name__}.{name}", " ".join(words[:WORDS])


def answers(index: int, strings: Sequence[str], chance: random.Random) -> list[str]:
    """The right one first; then two of other functions, and its own words shuffled, each time more of them."""
    words = strings[index].split()
    found = [strings[index], *chance.sample([other for other in strings if other != strings[index]], 2)]
    for share in (0.1, 0.4, 1.0):
        places = sorted(chance.sample(range(len(words)), max(2, round(share * len(words)))))
        moved = dict(zip(places, chance.sample(places, len(places)), strict=True))
        found.append(" ".join(words[moved.get(place, place)] for place in range(len(words))))
    return found


def examples_of(chat: Chat, name: str, responses: Sequence[str]) -> list[Example]:
    asked = user(f"What does {name} do in Python?")
    return [Example(prompt, [ids]) for prompt, ids in (sides(chat, [asked, assistant(answer)]) for answer in responses)]


@torch.no_grad()
def scored(model: Any, groups: Sequence[list[Example]], packing: Packing) -> dict[int, float]:
    """By identity of the example; what is in a group shares its batches with no others."""
    found: dict[int, float] = {}
    for group in groups:
        for rows in micro_batches(group, packing):
            batch = build_batch(rows)
            found |= {id(e): float(v) for e, v in zip(batch.examples, completion_rewards(model, batch), strict=True)}
    return found


def learn_head(model: Any, prompts: Sequence[list[Example]]) -> None:
    """Full batches of all pairs, on features that are computed once."""
    states: list[torch.Tensor] = []
    hook = model.score.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0].float()))
    order = [id(example) for rows in prompts for example in rows]
    place = dict(zip(scored(model, [[e] for rows in prompts for e in rows], Packing(1, 1)), range(len(order)), strict=True))
    hook.remove()
    features = torch.cat(states)
    chosen = torch.stack([features[place[id(rows[0])]] for rows in prompts for _ in rows[1:]])
    rejected = torch.stack([features[place[id(other)]] for rows in prompts for other in rows[1:]])
    weight = torch.zeros(features.shape[1], requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=1e-2, weight_decay=1e-2)
    for _ in range(EPOCHS):
        loss = -torch.nn.functional.logsigmoid((chosen - rejected) @ weight).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        model.score.weight.copy_(weight[None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=60, help="half of them to learn from")
    options = parser.parse_args()
    folder = smollm2.folder()
    chat = load_vocabulary(folder, None, [], trust_remote_code=False, classifier=True).chat
    chance = random.Random(0)
    strings = list(documented())
    taken = chance.sample(range(len(strings)), options.prompts)
    texts = [text for _, text in strings]
    prompts = [examples_of(chat, strings[i][0], answers(i, texts, chance)) for i in taken]
    known, asked = prompts[: len(prompts) // 2], prompts[len(prompts) // 2 :]
    model = new_reward_model(folder, torch.float32, 0)
    learn_head(model, known)
    longest = max(example.tokens for rows in asked for example in rows)
    everything = [[example for rows in asked for example in rows]]
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype)
        ways = [
            scored(model, [[example] for rows in asked for example in rows], Packing(1, 1)),
            scored(model, asked, Packing.choose(longest, torch.device("cpu"))),
            scored(model, everything, Packing(4 * longest, 8 * longest)),
        ]
        differences = sorted(abs(a[key] - b[key]) for a, b in itertools.combinations(ways, 2) for key in a)
        spread = statistics.mean(statistics.stdev(ways[0][id(example)] for example in rows) for rows in asked)
        right = statistics.mean(max(rows, key=lambda e: ways[0][id(e)]) is rows[0] for rows in asked)
        moved = statistics.mean(len({_ends(way, rows) for way in ways}) > 1 for rows in asked)
        most = differences[len(differences) * 99 // 100]
        print(
            f"{str(dtype).removeprefix('torch.'):9} largest {differences[-1]:.2e}, 99 % {most:.2e}, "
            f"spread {spread:.2f}, other pairs {moved:.1%} of {len(asked)} prompts, the right answer best {right:.0%}",
            flush=True,
        )


def _ends(scores: dict[int, float], rows: Sequence[Example]) -> tuple[int, int]:
    own = [scores[id(example)] for example in rows]
    return own.index(max(own)), own.index(min(own))


if __name__ == "__main__":
    main()
