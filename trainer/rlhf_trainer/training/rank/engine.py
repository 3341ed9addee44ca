"""A DeepSpeed engine around a model: its fp32 masters, its rotary buffers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from rlhf_api.resource.compute import Optimization
from rlhf_trainer.forward.rows import Batch
from rlhf_trainer.runtime.errors import ApplicationProblem, ConfigurationProblem
from rlhf_trainer.training.objectives import Objective, Summed

#: Ranks wait for one another while one hashes, uploads, fetches or exports, and a large model's checkpoint has a hundred gigabytes.
#: A rank that dies is seen by torchrun, and not by this.
_HOST_WORK = timedelta(hours=2)


class ObjectiveModule(torch.nn.Module):
    """What DeepSpeed wraps: its forward is the objective's."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, objective: Objective, batch: Batch) -> Summed:
        return objective(self.model, batch)


def join_ranks(backend: str) -> None:
    """Collective. Nothing is compiled: on a CPU DeepSpeed would, a minute long and on a busy machine ten, a kernel that only its
    inference asks for. It does without what is not among its compatible operations."""
    import deepspeed

    vars(deepspeed.ops)["__compatible_ops__"] = {}
    deepspeed.init_distributed(backend, timeout=_HOST_WORK)


def start_engine(model: Any, config: dict[str, Any], optimization: Optimization, *, gradient_checkpointing: bool) -> Any:
    """The engine, configured so; its optimizer is torch's AdamW with betas (0.9, 0.999), eps 1e-8, as the released code's."""
    import deepspeed

    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    wrapped = ObjectiveModule(model)
    optimizer = torch.optim.AdamW(
        _decay_groups(wrapped, optimization.weight_decay), lr=optimization.learning_rate, betas=(0.9, 0.999), eps=1e-8
    )
    engine, *_ = deepspeed.initialize(model=wrapped, optimizer=optimizer, config=config)
    _restore_buffers(engine.module.model, buffers)
    return engine


def load_master_weights(engine: Any, file: Path) -> None:
    """Put fp32 weights under the optimizer: an iteration goes on from what the last one really learnt, not from its export."""
    from deepspeed.utils import safe_set_full_fp32_param
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as weights:
        names = set(weights.keys())
        for name, parameter in engine.module.model.named_parameters():
            if name not in names:
                raise ConfigurationProblem(f"The master weights of the starting iterate lack {name}: they are of another model.")
            safe_set_full_fp32_param(parameter, weights.get_tensor(name).to(parameter.device))


def _decay_groups(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Norms and biases are not decayed, as transformers' Trainer has it."""
    decayed = [p for p in module.parameters() if p.ndim >= 2]
    others = [p for p in module.parameters() if p.ndim < 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _restore_buffers(model: Any, before: dict[str, torch.Tensor]) -> None:
    """DeepSpeed casts buffers with the parameters; rotary frequencies in bf16 are wrong beyond a few hundred positions."""
    for name, buffer in model.named_buffers():
        if name in before and buffer.dtype != before[name].dtype:
            owner, _, attribute = name.rpartition(".")
            module = model.get_submodule(owner)
            module.register_buffer(
                attribute, before[name].to(buffer.device), persistent=attribute not in module._non_persistent_buffers_set
            )
    for name, buffer in model.named_buffers():
        if name in before and buffer.dtype != before[name].dtype:
            raise ApplicationProblem(f"DeepSpeed keeps buffer {name} in {buffer.dtype}; it must stay in {before[name].dtype}.")
