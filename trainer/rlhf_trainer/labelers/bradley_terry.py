"""Bradley-Terry: the scalar head at the last real token, under the reward model's own chat template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import chat
from ..models import load_reward_model, load_vocabulary
from ..training.logps import default_token_budget, to_device
from ..training.objectives import completion_rewards
from ..training.rows import Example, build_row
from .base import Response, ignore_progress


class BradleyTerryLabeler:
    """Responses are packed without padding, so a score depends on nothing but its own response."""

    def __init__(self, model: Any, tokenizer: Any, token_budget: int | None = None) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._token_budget = token_budget

    @classmethod
    def load(cls, folder: Path, *, trust_remote_code: bool = False) -> BradleyTerryLabeler:
        """Raises ConfigurationProblem for a head that is newly initialised or a tokenizer without template."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        vocabulary = load_vocabulary(folder, None, [], trust_remote_code=trust_remote_code)
        model = load_reward_model(folder, dtype, trust_remote_code=trust_remote_code).to(device)
        return cls(model, vocabulary.tokenizer)

    @torch.no_grad()
    def score(self, responses: Sequence[Response], on_progress: Callable[[int], None] = ignore_progress) -> list[float]:
        examples: dict[int, Example] = {}
        for position, response in enumerate(responses):
            prompt, answer = chat.encode_exchange(self._tokenizer, response.messages, response.text)
            examples[position] = Example(prompt, [answer])
        # Packing is by identity: equal responses are different examples.
        position_of = {id(example): position for position, example in examples.items()}
        device = next(self._model.parameters()).device
        budget = self._token_budget or default_token_budget(device, 0)
        scores = [0.0] * len(responses)
        done = 0
        for group in pack_by_length(list(examples.values()), budget):
            rewards = completion_rewards(self._model, to_device(build_row(group), device)).tolist()
            for example, reward in zip(group, rewards, strict=True):
                scores[position_of[id(example)]] = reward
            done += len(group)
            on_progress(done)
        return scores


def pack_by_length(examples: Sequence[Example], token_budget: int) -> list[list[Example]]:
    """Neighbours in length share a row: with many examples first-fit would look at every row for each of them."""
    groups: list[list[Example]] = []
    room = 0
    for example in sorted(examples, key=lambda e: -e.tokens):
        if not groups or example.tokens > room:
            groups.append([])
            room = max(token_budget, example.tokens)
        groups[-1].append(example)
        room -= example.tokens
    return groups
