"""Bradley-Terry: the scalar head at the last real token, under the reward model's own chat template."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.attention import require_known_attention
from rlhf_trainer.forward.logps import device_of
from rlhf_trainer.forward.rewards import completion_rewards
from rlhf_trainer.forward.rows import Batch, Packing, build_batch, micro_batches
from rlhf_trainer.models.loading import load_reward_model
from rlhf_trainer.models.vocabulary import load_vocabulary

from .base import ScoreNotFinite
from .scoring import ScoringLabeler

#: Pairs that are packed together.
_TOGETHER = 256


class BradleyTerryLabeler(ScoringLabeler):
    @classmethod
    def load(cls, folder: Path, *, trust_remote_code: bool = False) -> BradleyTerryLabeler:
        """Raises ConfigurationProblem for a head that is newly initialised or a tokenizer without template."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        vocabulary = load_vocabulary(folder, None, [], trust_remote_code=trust_remote_code, classifier=True)
        model = load_reward_model(folder, dtype, trust_remote_code=trust_remote_code).to(device)
        return cls(model, vocabulary.chat)

    @torch.no_grad()
    def scores_of(self, examples: Iterable[Example]) -> Iterator[list[float]]:
        """Of each example, in order, the scores of its completions. Raises ScoreNotFinite."""
        numbered = enumerate(examples, start=1)
        while part := list(islice(numbered, _TOGETHER)):
            numbers = {id(example): number for number, example in part}
            require_known_attention(self._model, max(example.longest for _, example in part))
            packing = Packing.choose(max(example.tokens for _, example in part), device_of(self._model))
            found: dict[int, list[float]] = {}
            for rows in micro_batches([example for _, example in part], packing):
                batch = build_batch(rows)
                scores = iter(self._scores(batch).tolist())
                for example in batch.examples:
                    found[id(example)] = own = [next(scores) for _ in example.completions]
                    if not all(map(math.isfinite, own)):
                        raise ScoreNotFinite(
                            f"The reward model's scores of pair {numbers[id(example)]} of those that it is measured by are {own}. "
                            "Its weights overflow on this text, or are damaged. Train it with a smaller learning rate."
                        )
            yield from (found[id(example)] for _, example in part)

    def _scores(self, batch: Batch) -> Tensor:
        return completion_rewards(self._model, batch.to(device_of(self._model)))
