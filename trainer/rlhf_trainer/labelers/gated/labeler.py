"""Multi-objective: several rewards of a response, weighed by a gate that reads its prompt (arXiv 2406.12845)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.logps import device_of
from rlhf_trainer.forward.rewards import gated_rewards
from rlhf_trainer.forward.rows import Batch, beginnings
from rlhf_trainer.labelers.scoring import ScoringLabeler
from rlhf_trainer.models.chat import Chat
from rlhf_trainer.models.vocabulary import load_vocabulary

from .format import Gate
from .model import GatedModel, load_gated_model


class MultiObjectiveLabeler(ScoringLabeler):
    """One score for each response, as its authors' code gives for a conversation by itself."""

    def __init__(self, model: GatedModel, chat: Chat, gate: Gate) -> None:
        super().__init__(model, chat)
        self._gate = gate

    @classmethod
    def load(cls, folder: Path) -> MultiObjectiveLabeler:
        """Raises ConfigurationProblem. Code that lies in the folder is not run."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        vocabulary = load_vocabulary(folder, None, [], trust_remote_code=False, classifier=True)
        gate = Gate(vocabulary.tokenizer, str(folder))
        return cls(load_gated_model(folder, dtype).to(device), vocabulary.chat, gate)

    def _example(self, prompt: list[int], answer: list[int]) -> Example:
        self._gate.place(prompt, answer)
        return super()._example(prompt, answer)

    def _scores(self, batch: Batch) -> Tensor:
        gates = beginnings(batch) + torch.tensor([self._place(example) for example in batch.examples])
        device = device_of(self._model)
        return gated_rewards(self._model, batch.to(device), gates.to(device))

    def _place(self, example: Example) -> int:
        [answer] = example.completions
        return self._gate.place(example.prompt, answer)
