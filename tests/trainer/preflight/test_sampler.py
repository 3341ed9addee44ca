"""preflight knows from config.json what the sampling engine will refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlhf_trainer.preflight.sampler import sampler
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.stages import spec_of_world

pytestmark = pytest.mark.engine
GPU = {"pod": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}


def check(world: Path, folder: Path, config: dict[str, Any], *, allow_cpu: bool = False, **changes: Any) -> None:
    """Of the world's run, with these changes of the model's configuration and of the spec."""
    model = shutil.copytree(world / "model", folder / "model")
    known = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(known | config))
    policy = {"policy": {"model": {"uri": f"file://{model}"}, "dtype": "float32"}, "storage": {"url": f"file://{folder}/store"}}
    spec = spec_of_world(world, **policy | changes)
    sampler(spec, folder / "scratch", spec.storage, allow_cpu=allow_cpu)


def test_the_world_can_be_sampled(world: Path, tmp_path: Path) -> None:
    check(world, tmp_path, {})


def test_a_class_that_vllm_does_not_have_is_named(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match="is MysteryForCausalLM, and vLLM, which samples, has no such class"):
        check(world, tmp_path, {"architectures": ["MysteryForCausalLM"]})


@pytest.mark.parametrize(
    "heads", [{"head_dim": 16}, {"head_dim": None, "hidden_size": 64, "num_attention_heads": 4}], ids=["said", "divided"]
)
def test_heads_for_which_a_cpu_has_no_kernel_are_named(world: Path, tmp_path: Path, heads: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationProblem, match=r"has attention heads of 16, and on a CPU .* 32, 64, .*sample\.pod\.resources"):
        check(world, tmp_path, heads)


def test_on_a_gpu_any_head_will_do(world: Path, tmp_path: Path) -> None:
    sample = spec_of_world(world, storage={"url": "file:///s"}).sample.to_wire() | GPU
    check(world, tmp_path, {"head_dim": 16}, sample=sample)


def test_a_run_that_goes_without_its_gpus_samples_on_a_cpu(world: Path, tmp_path: Path) -> None:
    sample = spec_of_world(world, storage={"url": "file:///s"}).sample.to_wire() | GPU
    with pytest.raises(ConfigurationProblem, match="heads of 16"):
        check(world, tmp_path, {"head_dim": 16}, allow_cpu=True, sample=sample)


BIG = {"num_hidden_layers": 80, "num_key_value_heads": 64, "num_attention_heads": 64, "head_dim": 128, "hidden_size": 8192}


def long_answers(world: Path, **pod: Any) -> dict[str, Any]:
    return spec_of_world(world, storage={"url": "file:///s"}).sample.to_wire() | {"maxNewTokens": 2000, "pod": pod}


def test_room_for_one_answer_is_looked_at(world: Path, tmp_path: Path) -> None:
    """2 x 80 layers x 64 heads x 128 x 4 bytes a token: 5 MiB."""
    said = r"in 1 GiB, and 2016 tokens of .* take 9\.8\. .*raise VLLM_CPU_KVCACHE_SPACE \(GiB\) in sample\.pod\.env"
    with pytest.raises(ConfigurationProblem, match=said):
        check(world, tmp_path, BIG, sample=long_answers(world))


def test_a_pod_that_has_more_room_says_so(world: Path, tmp_path: Path) -> None:
    env = [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "12"}]
    check(world, tmp_path, BIG, sample=long_answers(world, env=env))


def test_of_layers_that_look_back_a_little_nothing_is_claimed(world: Path, tmp_path: Path) -> None:
    check(world, tmp_path, {**BIG, "layer_types": ["sliding_attention"] * 80}, sample=long_answers(world))
