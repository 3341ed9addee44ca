"""DeepSpeed's configuration: made of the manifest's fields, or the manifest's own, in which nothing says what other fields say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from operator import eq
from typing import Any

from rlhf_api.resource.compute import DeepSpeed, Offload, Optimization
from rlhf_api.resource.model import Dtype
from rlhf_trainer.data.rows import KeyTwice, json_of
from rlhf_trainer.runtime.config_maps import read_config_map_key
from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line
from rlhf_trainer.runtime.narrow import present

#: For what another field decides; transformers' Trainer reads it so, too.
_AUTO = "auto"
#: What a configuration of one's own may say beside `zero_optimization`. None of it changes what is computed but by rounding, or it
#: is in the identity of what is trained.
_READ = frozenset(
    {
        "zero_optimization",
        "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer",
        "communication_data_type",
        "data_types",
        "prescale_gradients",
        "gradient_predivide_factor",
        "steps_per_print",
        "wall_clock_breakdown",
        "memory_breakdown",
        "dump_state",
        "comms_logger",
        "flops_profiler",
        "aio",
    }
)
#: Accumulation is ours: the loop sets its boundaries, for packed rows differ in number by step.
_BATCHES = {
    "train_batch_size": "optimization.globalBatchSize",
    "train_micro_batch_size_per_gpu": "tokenBudget, by which rows are packed",
    "gradient_accumulation_steps": "globalBatchSize and tokenBudget",
}


def deepspeed_config(
    spec: DeepSpeed, dtype: Dtype, optimization: Optimization, field: str = "deepspeed.config", revision: str | None = None
) -> dict[str, Any]:
    """For `deepspeed.initialize`. `field`: of the manifest, for messages. `revision`: of the text of `spec.config`, as preflight
    found it. Raises ConfigurationProblem, for a text that has changed since, too.
    """
    ours = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimization.max_grad_norm,
        "bf16": {"enabled": dtype is Dtype.BFLOAT16},
    }
    defaults = {
        "zero_allow_untested_optimizer": True,
        # The optimizer is torch's own AdamW, wherever its states are.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": False,
    }
    given = _generated(spec, dtype) if spec.config is None else _own(spec, dtype, optimization, field, revision)
    return {**defaults, **given, **ours}


def _generated(spec: DeepSpeed, dtype: Dtype) -> dict[str, Any]:
    # Without ZeRO DeepSpeed keeps its fp32 masters of bf16 weights to itself: nobody could set or export them. Stage 1 is the same.
    zero: dict[str, Any] = {"stage": max(1, spec.zero_stage) if dtype is Dtype.BFLOAT16 else spec.zero_stage}
    if spec.offload is not Offload.NONE:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if spec.offload is Offload.ALL:
        if spec.zero_stage != 3:
            raise ConfigurationProblem(
                "deepspeed.offload: All moves parameters, which only zeroStage 3 partitions. Set zeroStage: 3."
            )
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {"zero_optimization": zero}


def _own(spec: DeepSpeed, dtype: Dtype, optimization: Optimization, field: str, revision: str | None) -> dict[str, Any]:
    """What of the manifest's own configuration is its own to say."""
    reference = present(spec.config, field)
    name = f"Key {reference.key} of ConfigMap {reference.name} ({field})"
    try:
        config = json_of(read_config_map_key(reference, field, revision))
    except KeyTwice as error:
        raise ConfigurationProblem(f"{name}: {error}. Keep one of them.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationProblem(f"{name} is no JSON: {error}. Write a DeepSpeed configuration.") from error
    if not isinstance(config, dict):
        raise ConfigurationProblem(f"{name} is no object. Write a DeepSpeed configuration.")
    kept = {key: value for key, value in config.items() if not _is_auto(value)}
    for key, (allowed, where) in _decided(dtype, optimization).items():
        if key in kept and not allowed(kept.pop(key)):
            said = json.dumps(config[key])
            raise ConfigurationProblem(f'{name} says {key}: {said}, which {where} decides. Remove it there, or write "auto".')
    if unknown := sorted(kept.keys() - _READ):
        raise ConfigurationProblem(
            f"{name} has {', '.join(unknown)}, which this version does not pass on. Remove it; read are {', '.join(sorted(_READ))}."
        )
    _require_zero(kept.get("zero_optimization"), spec, dtype, name)
    return kept


def _decided(dtype: Dtype, optimization: Optimization) -> dict[str, tuple[Callable[[Any], bool], str]]:
    """What other fields decide: whether a value says the same, and which field it is."""
    return {
        **{key: (_differs, where) for key, where in _BATCHES.items()},
        "gradient_clipping": (partial(eq, optimization.max_grad_norm), "optimization.maxGradNorm"),
        "bf16": (partial(_is_enabled, dtype is Dtype.BFLOAT16), "policy.dtype"),
        "fp16": (partial(_is_enabled, False), "policy.dtype, bfloat16 or float32,"),
        "amp": (partial(_is_enabled, False), "policy.dtype"),
        "optimizer": (_is_our_optimizer, "optimization: AdamW with betas 0.9 and 0.999"),
        "scheduler": (_differs, "optimization"),
        "activation_checkpointing": (_differs, "gradientCheckpointing"),
    }


def _differs(_: object) -> bool:
    """Nothing but "auto" says what several fields decide together."""
    return False


def _is_enabled(expected: bool, value: Any) -> bool:
    """Whether a type of numbers is on, or off, as it is; what goes with one that is off does not matter."""
    if not isinstance(value, Mapping):
        return False
    said = {key: item for key, item in value.items() if item != _AUTO}
    return said.get("enabled", expected) is expected and (not expected or said.keys() <= {"enabled"})


def _is_our_optimizer(value: Any) -> bool:
    if not isinstance(value, Mapping) or value.get("type") not in ("AdamW", _AUTO):
        return False
    return value.keys() <= {"type", "params"} and _is_auto(value.get("params", _AUTO))


def _is_auto(value: Any) -> bool:
    """Whether it leaves everything to others."""
    if isinstance(value, Mapping):
        return bool(value) and all(map(_is_auto, value.values()))
    return bool(value == _AUTO)


def _require_zero(zero: Any, spec: DeepSpeed, dtype: Dtype, name: str) -> None:
    """DeepSpeed's own check of its fields, before a GPU is asked for; "auto" is its default there."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from pydantic import ValidationError

    if not isinstance(zero, Mapping):
        raise ConfigurationProblem(f"{name} needs an object zero_optimization with a stage.")
    try:
        found = DeepSpeedZeroConfig(**zero)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" for wrong in error.errors())
        raise ConfigurationProblem(f"{name}: DeepSpeed refuses its zero_optimization: {told}.") from error
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigurationProblem(f"{name}: DeepSpeed refuses its zero_optimization: {first_line(error)}") from error
    if dtype is Dtype.BFLOAT16 and found.stage < 1:
        raise ConfigurationProblem(
            f"{name} has ZeRO stage 0, under which DeepSpeed keeps its fp32 masters of bf16 weights to itself. Set stage: 1; it "
            "computes the same."
        )
    if spec.zero_stage not in (DeepSpeed().zero_stage, int(found.stage)) or spec.offload is not Offload.NONE:
        raise ConfigurationProblem(
            f"{name} is the whole configuration, and zeroStage {spec.zero_stage} and offload {spec.offload} beside it say "
            "something else. Remove them, and say it in its zero_optimization."
        )
