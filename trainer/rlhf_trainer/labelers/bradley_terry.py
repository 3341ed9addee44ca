"""Bradley-Terry: the scalar head at the last real token, under the reward model's own chat template."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from rlhf_trainer.forward.logps import device_of
from rlhf_trainer.forward.rewards import completion_rewards
from rlhf_trainer.forward.rows import Batch
from rlhf_trainer.models.loading import load_reward_model
from rlhf_trainer.models.vocabulary import load_vocabulary

from .scoring import ScoringLabeler


class BradleyTerryLabeler(ScoringLabeler):
    @classmethod
    def load(cls, folder: Path, *, trust_remote_code: bool = False) -> BradleyTerryLabeler:
        """Raises ConfigurationProblem for a head that is newly initialised or a tokenizer without template."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        vocabulary = load_vocabulary(folder, None, [], trust_remote_code=trust_remote_code, classifier=True)
        model = load_reward_model(folder, dtype, trust_remote_code=trust_remote_code).to(device)
        return cls(model, vocabulary.chat)

    def _scores(self, batch: Batch) -> Tensor:
        return completion_rewards(self._model, batch.to(device_of(self._model)))
