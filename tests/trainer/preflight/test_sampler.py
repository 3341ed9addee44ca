"""preflight knows from config.json what the sampling engine will refuse."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.model import ModelRef
from rlhf_trainer.preflight.sampler import sampler
from rlhf_trainer.preflight.weights import require_architecture
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.stages import spec_of_world

pytestmark = pytest.mark.engine
GPU = {"pod": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}


def check(world: Path, folder: Path, config: dict[str, Any] | bytes, *, allow_cpu: bool = False, **changes: Any) -> list[str]:
    """Warnings on the world's run, with these changes of the model's configuration (bytes: all of it) and of the spec."""
    model = shutil.copytree(world / "model", folder / "model")
    known = json.loads((model / "config.json").read_text())
    (model / "config.json").write_bytes(config if isinstance(config, bytes) else json.dumps(known | config).encode())
    policy = {"policy": {"model": {"uri": f"file://{model}"}, "dtype": "float32"}, "storage": {"url": f"file://{folder}/store"}}
    spec = spec_of_world(world, **policy | changes)
    warnings: list[str] = []
    sampler(spec, folder / "scratch", spec.storage, warnings, allow_cpu=allow_cpu)
    return warnings


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


@pytest.mark.parametrize("value", ["abc", "0.5", "$(ROOM)", "0", "-1", " "])
def test_room_that_vllm_could_not_read_is_shown(world: Path, tmp_path: Path, value: str) -> None:
    env = [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": value}]
    said = rf"VLLM_CPU_KVCACHE_SPACE is {re.escape(repr(value))} for stage sample, .* whole number of GiB there, at least 1"
    with pytest.raises(ConfigurationProblem, match=said):
        check(world, tmp_path, {}, sample=long_answers(world, env=env))


def test_without_a_figure_the_machine_decides(world: Path, tmp_path: Path) -> None:
    """vLLM takes a share of its memory."""
    check(world, tmp_path, BIG, sample=long_answers(world, env=[{"name": "VLLM_CPU_KVCACHE_SPACE", "value": ""}]))


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--max-num-seqs=[", r"extraArgs has '--max-num-seqs=\[', whose value is no YAML"),
        ("--enforce-eager=false", "extraArgs has --enforce-eager=false: on a CPU"),
        ("--enable-chunked-prefill", "extraArgs has --enable-chunked-prefill: on a CPU"),
    ],
)
def test_engine_arguments_that_stage_sample_would_refuse_are_named(world: Path, tmp_path: Path, argument: str, said: str) -> None:
    sample = spec_of_world(world, storage={"url": "file:///s"}).sample.to_wire() | {"engine": {"extraArgs": [argument]}}
    with pytest.raises(ConfigurationProblem, match=said):
        check(world, tmp_path, {}, sample=sample)


def test_whoever_brings_a_compiler_may_compile(world: Path, tmp_path: Path) -> None:
    pod = {"env": [{"name": "TORCHDYNAMO_DISABLE", "value": "0"}]}
    sample = spec_of_world(world, storage={"url": "file:///s"}).sample.to_wire()
    check(world, tmp_path, {}, sample=sample | {"engine": {"extraArgs": ["--enforce-eager=false"]}, "pod": pod})


def test_of_layers_that_look_back_a_little_nothing_is_claimed(world: Path, tmp_path: Path) -> None:
    check(world, tmp_path, {**BIG, "layer_types": ["sliding_attention"] * 80}, sample=long_answers(world))


def test_of_layers_that_all_look_back_to_the_beginning_it_is(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match=r"take 9\.8"):
        check(world, tmp_path, {**BIG, "layer_types": ["full_attention"] * 80}, sample=long_answers(world))


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"null", b"\xff\xfe", b'{"architectures": ["LlamaForCausalLM"]}', b'{"model_type": []}']
)
def test_a_configuration_that_nobody_can_read_is_said_to_be(world: Path, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationProblem, match=r"config\.json"):
        check(world, tmp_path, content)


@pytest.mark.parametrize("named", ["LlamaForCausalLM", [None], 3])
def test_classes_that_are_no_list_of_names_are_shown(world: Path, tmp_path: Path, named: Any) -> None:
    with pytest.raises(ConfigurationProblem, match=r"architectures is .* in its config\.json, and it must be a list of names"):
        check(world, tmp_path, {"architectures": named})


@pytest.mark.parametrize("named", [None, []])
def test_a_model_that_names_no_class_is_for_others_to_refuse(world: Path, tmp_path: Path, named: Any) -> None:
    check(world, tmp_path, {"architectures": named})


def test_a_class_that_only_transformers_has_will_do(world: Path, tmp_path: Path) -> None:
    check(world, tmp_path, {"architectures": ["HeliumForCausalLM"], "model_type": "helium"})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_attention_heads": 0, "head_dim": None}, "num_attention_heads is 0"),
        ({"num_attention_heads": 3, "head_dim": None}, r"hidden size \(128\) is not a multiple of .* \(3\)"),
        ({"num_attention_heads": -4}, "has -4 attention heads .* and 4 for keys and values"),
        ({"num_key_value_heads": 3}, "has 4 attention heads .* and 3 for keys and values"),
        ({"num_key_value_heads": 8}, "has 4 attention heads .* and 8 for keys and values"),
        ({"num_key_value_heads": 0}, "has 4 attention heads .* and 0 for keys and values"),
        ({"num_hidden_layers": None}, "Field 'num_hidden_layers' expected int, got NoneType"),
        ({"text_config": "x"}, "text_config in its config.json has no num_attention_heads"),
        ({"text_config": {"num_attention_heads": 4}}, "text_config in its config.json has no num_attention_heads"),
    ],
)
def test_numbers_that_do_not_go_together_are_shown(world: Path, tmp_path: Path, config: dict[str, Any], said: str) -> None:
    """On a GPU, too."""
    sample = spec_of_world(world, storage={"url": "file:///s"}).sample.to_wire() | GPU
    with pytest.raises(ConfigurationProblem, match=said):
        check(world, tmp_path, config, sample=sample)


@pytest.mark.parametrize("config", [{"head_dim": 0}, {"num_key_value_heads": 1}, {"num_key_value_heads": None}])
def test_numbers_that_vllm_reads_in_its_own_way_pass(world: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    check(world, tmp_path, config)


@pytest.mark.parametrize(
    ("text", "said"),
    [({}, None), ({"head_dim": 16}, "attention heads of 16"), ({"num_key_value_heads": 3}, "4 attention heads .* and 3 for")],
)
def test_of_a_model_that_sees_its_text_is_looked_at(world: Path, tmp_path: Path, text: dict[str, Any], said: str | None) -> None:
    own = json.loads((world / "model" / "config.json").read_text()) | text
    vision = {"model_type": "clip_vision_model", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    whole = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "text_config": own, "vision_config": vision}
    with nullcontext() if said is None else pytest.raises(ConfigurationProblem, match=said):
        check(world, tmp_path, json.dumps(whole).encode())


@pytest.mark.parametrize(
    "config", [{"num_attention_heads": 0, "head_dim": None}, {"architectures": [None]}, {"model_type": "no-such"}]
)
def test_what_the_check_of_weights_finds_too_is_said_in_the_same_words(world: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    """preflight tells each problem once."""
    with pytest.raises(ConfigurationProblem) as sampled:
        check(world, tmp_path, config)
    model = ModelRef(uri=f"file://{tmp_path}/model")
    with pytest.raises(ConfigurationProblem) as loaded:
        require_architecture(tmp_path / "model", model, "ForCausalLM")
    assert str(sampled.value) == str(loaded.value)


def test_deterministic_sampling_needs_gpus_and_says_what_it_may_cost(world: Path, tmp_path: Path) -> None:
    sample = spec_of_world(world, storage={"url": "file:///s"}).sample.to_wire() | {"deterministic": True}
    with pytest.raises(ConfigurationProblem, match=r"sample\.deterministic is true, and on a CPU vLLM has no batch-invariant mode"):
        check(world, tmp_path / "none", {}, sample=sample)
    with pytest.raises(ConfigurationProblem, match="on a CPU vLLM has no batch-invariant mode"):
        check(world, tmp_path / "without", {}, allow_cpu=True, sample=sample | GPU)
    told = check(world, tmp_path / "gpu", {}, sample=sample | GPU)
    assert "may cost speed, gives no figure" in told[0]
    assert "compute capability 8.0 or higher" in told[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"engine": {"extraArgs": ["--attention-backend=FLASHINFER"]}},
            "--attention-backend=FLASHINFER, which is not batch-invariant",
        ),
        ({"pod": {**GPU["pod"], "env": [{"name": "VLLM_BATCH_INVARIANT", "value": "0"}]}}, "VLLM_BATCH_INVARIANT is '0'"),
    ],
)
def test_settings_that_deterministic_sampling_cannot_have_are_named(
    world: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    sample = spec_of_world(world, storage={"url": "file:///s"}).sample.to_wire() | {"deterministic": True} | GPU | changes
    with pytest.raises(ConfigurationProblem, match=words):
        check(world, tmp_path, {}, sample=sample)
