"""A Llama's trunk with several rewards and a gate over them, by `format.py`; no code of the model's own is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name by which everybody knows it)
from safetensors import safe_open
from torch import Tensor, nn

from rlhf_trainer.models.loading import load_trunk
from rlhf_trainer.models.stored import require_shapes, stored_shapes
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .format import REGRESSION, SCALE, TRANSFORM, GatedShape, gate_layer


class GatedHeads(nn.Module):
    """score = sum_k g_k (r M)_k, with r = W h [K] and g = s softmax(MLP(p) / T) [K]: arXiv 2406.12845, and its published code.

    h [d]: the trunk's state of the last token; p [d]: that of the gate's. M [K, K] takes out of a reward what it owes to verbosity.
    All in fp32 whatever the trunk's dtype: bf16 would round near scores to ties.
    """

    def __init__(self, shape: GatedShape, tensors: dict[str, Tensor]) -> None:
        """tensors: by the names of `shape.tensors`."""
        super().__init__()
        found = {name: nn.Parameter(tensor.float(), requires_grad=False) for name, tensor in tensors.items()}
        self._temperature = shape.temperature
        self.regression, self.transform, self.scale = found[REGRESSION], found[TRANSFORM], found[SCALE]
        layers = range(shape.n_hidden + 1)
        self.weights = nn.ParameterList(found[gate_layer(number, "weight")] for number in layers)
        self.biases = nn.ParameterList(found[gate_layer(number, "bias")] for number in layers)

    def forward(self, last: Tensor, gate: Tensor) -> Tensor:
        """last, gate: states [C, d] → scores [C]."""
        rewards = F.linear(last.float(), self.regression) @ self.transform
        return (self.gating(gate) * rewards).sum(-1)

    def gating(self, gate: Tensor) -> Tensor:
        """Weights [C, K] of the rewards."""
        state = gate.float()
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            state = F.linear(state, weight, bias).relu()
        logits = F.linear(state, self.weights[-1], self.biases[-1])
        return (logits / self._temperature).softmax(-1) * self.scale


class GatedModel(nn.Module):
    """`base_model`: as the one forward pass calls it."""

    def __init__(self, trunk: Any, heads: GatedHeads) -> None:
        super().__init__()
        self.base_model, self.heads = trunk, heads

    @property
    def config(self) -> Any:
        return self.base_model.config


def load_gated_model(folder: Path, dtype: torch.dtype) -> GatedModel:
    """The trunk in `dtype`. Raises ConfigurationProblem where anything is missing, or not as config.json has it."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationProblem(f"{folder}: config.json cannot be read: {error}. Copy it anew.") from error
    shape = GatedShape.of(config, str(folder))
    require_shapes(stored_shapes(folder, str(folder)), shape.tensors, str(folder))
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), "pt") as weights:
            tensors |= {name: weights.get_tensor(name) for name in weights.keys() if name in shape.tensors}  # noqa: SIM118
    return GatedModel(load_trunk(folder, dtype), GatedHeads(shape, tensors)).eval()
