"""Bradley-Terry: the scalar head at the last real token, under the reward model's own chat template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.attention import require_full_attention
from rlhf_trainer.forward.logps import device_of
from rlhf_trainer.forward.rewards import completion_rewards
from rlhf_trainer.forward.rows import Packing, build_batch, micro_batches
from rlhf_trainer.models import chat
from rlhf_trainer.models.loading import load_reward_model
from rlhf_trainer.models.vocabulary import load_vocabulary

from .base import Response, ignore_progress

Key = tuple[tuple[int, ...], tuple[int, ...]]


class BradleyTerryLabeler:
    """Responses are packed without padding, so a score depends on nothing but its own response."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer

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
        # Equal responses are scored once: the last bits of a score depend on what shares its row, and equal responses must tie.
        examples: dict[Key, Example] = {}
        keys: list[Key] = []
        for response in responses:
            prompt, answer = chat.encode_exchange(self._tokenizer, response.messages, response.text)
            keys.append((tuple(prompt), tuple(answer)))
            examples.setdefault(keys[-1], Example(prompt, [answer]))
        require_full_attention(self._model, list(examples.values()))
        device = device_of(self._model)
        packing = Packing.choose(max((example.tokens for example in examples.values()), default=1), device)
        scores: dict[int, float] = {}
        done = 0
        for rows in micro_batches(list(examples.values()), packing):
            batch = build_batch(rows).to(device)
            rewards = completion_rewards(self._model, batch).tolist()
            for example, reward in zip(batch.examples, rewards, strict=True):
                scores[id(example)] = reward
            done += len(batch.examples)
            on_progress(done)
        on_progress(len(responses))
        return [scores[id(examples[key])] for key in keys]
