"""A DeepSpeed configuration of one's own: what it may say, and what other fields of the manifest say already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.conventions.mounts import config_map_file
from rlhf_api.resource.compute import DeepSpeed, DpoOptimization
from rlhf_api.resource.model import Dtype
from rlhf_api.resource.storage import ConfigMapKey
from rlhf_trainer.runtime import config_maps
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.training.zero import deepspeed_config

KEY = ConfigMapKey(name="deepspeed", key="zero3.json")
#: As documentation of transformers writes it for its Trainer, with CPU offload.
OF_TRANSFORMERS: dict[str, Any] = {
    "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16},
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
        "offload_param": {"device": "cpu", "pin_memory": True},
        "overlap_comm": True,
        "contiguous_gradients": True,
        "sub_group_size": 1e9,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": 1e9,
        "stage3_max_reuse_distance": 1e9,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 2000,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}
ZERO = {"zero_optimization": {"stage": 2}}


@pytest.fixture(autouse=True)
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the key, where a pod has it."""
    monkeypatch.setattr(config_maps, "FOLDER", tmp_path)
    file = tmp_path / config_map_file(KEY)
    file.parent.mkdir(parents=True)
    return file


def config(text: str | dict[str, Any], mounted: Path, dtype: Dtype = Dtype.BFLOAT16) -> dict[str, Any]:
    mounted.write_text(text if isinstance(text, str) else json.dumps(text))
    return deepspeed_config(DeepSpeed(config=KEY), dtype, DpoOptimization(max_grad_norm=0.5), "train.compute.deepspeed.config")


def test_one_that_leaves_the_rest_to_its_trainer_is_completed(mounted: Path) -> None:
    found = config(OF_TRANSFORMERS, mounted)
    assert found["zero_optimization"] == OF_TRANSFORMERS["zero_optimization"]
    assert found["bf16"] == {"enabled": True}
    assert (found["train_micro_batch_size_per_gpu"], found["gradient_accumulation_steps"]) == (1, 1)
    assert found["gradient_clipping"] == 0.5
    assert found["steps_per_print"] == 2000
    # Without it DeepSpeed refuses torch's AdamW where states are offloaded.
    assert found["zero_force_ds_cpu_optimizer"] is False
    assert found.keys().isdisjoint({"optimizer", "fp16", "train_batch_size"})


def test_what_it_says_as_the_manifest_says_it_is_no_contradiction(mounted: Path) -> None:
    same = {"bf16": {"enabled": True}, "fp16": {"enabled": False, "loss_scale": 0}, "gradient_clipping": 0.5}
    assert config(ZERO | same, mounted)["bf16"] == {"enabled": True}


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("train_micro_batch_size_per_gpu", 8, "tokenBudget"),
        ("gradient_accumulation_steps", 16, "globalBatchSize"),
        ("train_batch_size", 128, "globalBatchSize"),
        ("gradient_clipping", 1.0, "maxGradNorm"),
        ("bf16", {"enabled": False}, "policy.dtype"),
        ("bf16", {"enabled": True, "immediate_grad_update": True}, "policy.dtype"),
        ("bf16", True, "policy.dtype"),
        ("fp16", {"enabled": True}, "policy.dtype"),
        ("amp", {"enabled": True, "opt_level": "O1"}, "policy.dtype"),
        ("optimizer", {"type": "AdamW", "params": {"lr": 1e-5, "betas": "auto"}}, "optimization"),
        ("optimizer", {"type": "OneBitAdam", "params": {"lr": "auto"}}, "optimization"),
        ("scheduler", {"type": "WarmupLR", "params": {"warmup_min_lr": 0}}, "optimization"),
        ("activation_checkpointing", {"partition_activations": True}, "gradientCheckpointing"),
    ],
)
def test_what_other_fields_decide_is_refused_and_the_field_named(mounted: Path, key: str, value: Any, where: str) -> None:
    with pytest.raises(ConfigurationProblem) as told:
        config(ZERO | {key: value}, mounted)
    words = str(told.value)
    assert words.startswith(
        f"Key zero3.json of ConfigMap deepspeed (train.compute.deepspeed.config) says {key}: {json.dumps(value)}, which "
    )
    assert where in words


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("{", "is no JSON"),
        ("[]", "is no object"),
        ('{"zero_optimization": {"stage": 1, "stage": 3}}', "an object has the key 'stage' twice"),
        ({}, "needs an object zero_optimization"),
        ({"zero_optimization": True}, "needs an object zero_optimization"),
        ({"zero_optimization": {"stage": 7}}, "DeepSpeed refuses its zero_optimization: .*stage"),
        ({"zero_optimization": {"stage": 2, "overlap_com": True}}, "DeepSpeed refuses its zero_optimization: .*overlap_com"),
        ({"zero_optimization": {"stage": 0}}, "ZeRO stage 0, .* Set stage: 1"),
        (ZERO | {"hybrid_engine": {"enabled": True}}, "has hybrid_engine, which this version does not pass on"),
        ({"zero_stage": 3} | ZERO, "has zero_stage, which"),
    ],
)
def test_what_is_none_or_says_more_than_is_read_is_refused(mounted: Path, given: Any, wrong: str) -> None:
    with pytest.raises(ConfigurationProblem, match=wrong):
        config(given, mounted)


@pytest.mark.parametrize("beside", [{"zero_stage": 3}, {"offload": "Optimizer"}])
def test_fields_beside_it_that_say_something_else_are_refused(mounted: Path, beside: dict[str, Any]) -> None:
    mounted.write_text(json.dumps(ZERO))
    with pytest.raises(ConfigurationProblem, match="is the whole configuration"):
        deepspeed_config(DeepSpeed(config=KEY, **beside), Dtype.BFLOAT16, DpoOptimization())
    assert deepspeed_config(DeepSpeed(config=KEY, zero_stage=2), Dtype.BFLOAT16, DpoOptimization())


def test_stage_0_is_right_for_weights_that_have_no_masters(mounted: Path) -> None:
    assert config({"zero_optimization": {"stage": 0}}, mounted, Dtype.FLOAT32)["zero_optimization"] == {"stage": 0}
