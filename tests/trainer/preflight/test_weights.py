"""Weights that are not what a manifest means are refused by config.json and file headers, before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from rlhf_api.resource.model import ModelRef
from rlhf_trainer.preflight.weights import require_architecture, require_head, require_ids_within
from rlhf_trainer.runtime.errors import ConfigurationProblem

QUANTISED = [
    ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes"),
    ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}, "awq"),
    ({"quant_method": "gptq", "bits": 4}, "gptq"),
    ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
    ({"format": "nvfp4-pack-quantized"}, "config.json has a quantization_config"),
]


@pytest.fixture
def model(world: Path, tmp_path: Path) -> Path:
    return shutil.copytree(world / "model", tmp_path / "model")


def named(folder: Path) -> ModelRef:
    return ModelRef(uri=f"file://{folder}")


def rewrite(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def reshape(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}, file, metadata={"format": "pt"})


def test_a_sound_model_passes(model: Path, reward: Path, tokenizer: Any) -> None:
    require_architecture(model, named(model), "ForCausalLM")
    require_ids_within(model, named(model), tokenizer)
    require_architecture(reward, named(reward), "ForSequenceClassification")
    require_head(reward, named(reward))


@pytest.mark.parametrize(("config", "method"), QUANTISED, ids=[method for _, method in QUANTISED])
def test_a_quantised_model_is_named_with_its_method(model: Path, config: dict[str, Any], method: str) -> None:
    rewrite(model, quantization_config=config)
    with pytest.raises(ConfigurationProblem, match=rf"is quantised \({method}\)\. .* name the model that it was made from"):
        require_architecture(model, named(model), "ForCausalLM")


def test_an_adapter_beside_a_model_is_neither_taken_nor_left_out_in_silence(model: Path) -> None:
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "meta/base"}')
    with pytest.raises(ConfigurationProblem, match=r"has an adapter \(adapter_config\.json\) beside a whole model"):
        require_architecture(model, named(model), "ForCausalLM")


@pytest.mark.parametrize(
    ("content", "said"), [('{"base_model_name_or_path": "meta/base"}', " of meta/base"), ("{", ""), ("[]", "")]
)
def test_an_adapter_alone_is_named_with_its_base(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ConfigurationProblem, match=f"is an adapter{said}, not a model. Merge it"):
        require_architecture(tmp_path, named(tmp_path), "ForCausalLM")


def test_weights_of_another_class_are_named(model: Path) -> None:
    reshape(model, lambda weights: {f"gpt_neox.{name}": tensor for name, tensor in weights.items()})
    with pytest.raises(ConfigurationProblem, match=r"weights of another class than LlamaForCausalLM.*the first is gpt_neox"):
        require_architecture(model, named(model), "ForCausalLM")


def test_a_trunk_that_was_saved_without_its_prefix_is_the_same_model(model: Path) -> None:
    """As Bloom's published files are."""
    reshape(model, lambda weights: {name.removeprefix("model."): tensor for name, tensor in weights.items()})
    require_architecture(model, named(model), "ForCausalLM")


def test_weights_of_another_size_are_named_with_both_shapes(model: Path) -> None:
    rewrite(model, intermediate_size=64)
    with pytest.raises(ConfigurationProblem, match=r"mlp\.\w+\.weight is \[.*\] in its files, and \[.*64.*\] by its config\.json"):
        require_architecture(model, named(model), "ForCausalLM")


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff\xfe", b'{"model_type": "no-such-type", "architectures": ["XForCausalLM"]}', b"[" * 200_000]
)
def test_a_configuration_that_nobody_can_read_is_said_to_be(model: Path, content: bytes) -> None:
    (model / "config.json").write_bytes(content)
    with pytest.raises(ConfigurationProblem, match=r"config\.json"):
        require_architecture(model, named(model), "ForCausalLM")


@pytest.mark.parametrize("classes", ["LlamaForCausalLM", [None], 3, {"LlamaForCausalLM": 1}])
def test_classes_that_are_no_list_of_names_are_shown(model: Path, classes: Any) -> None:
    rewrite(model, architectures=classes)
    with pytest.raises(ConfigurationProblem, match=r"architectures is .* in its config\.json, and it must be a list of names"):
        require_architecture(model, named(model), "ForCausalLM")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_attention_heads": 0, "head_dim": None}, "num_attention_heads is 0, and it divides by that"),
        ({"num_attention_heads": "4"}, r"Field 'num_attention_heads' expected int, got str \(value: '4'\)"),
        ({"hidden_size": 127}, r"hidden size \(127\) is not a multiple of the number of attention heads \(4\)"),
        ({"rms_norm_eps": "small"}, "Field 'rms_norm_eps' expected float, got str"),
        ({"rope_parameters": 3}, "rope_parameters"),
        ({"vocab_size": -5}, "negative dimension|makes no model"),
    ],
)
def test_what_transformers_refuses_is_said_with_the_field(model: Path, config: dict[str, Any], said: str) -> None:
    rewrite(model, **config)
    with pytest.raises(ConfigurationProblem, match=said):
        require_architecture(model, named(model), "ForCausalLM")


def test_a_file_that_is_cut_off_is_named(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ConfigurationProblem, match=r"model\.safetensors is no safetensors file"):
        require_architecture(model, named(model), "ForCausalLM")


def test_tokens_beyond_the_model_s_table_are_named(model: Path, tokenizer: Any) -> None:
    reshape(model, lambda weights: weights | {"model.embed_tokens.weight": weights["model.embed_tokens.weight"][:-2]})
    said = f"vectors for {len(tokenizer) - 2} tokens, and its tokenizer has 2 more, the first"
    with pytest.raises(ConfigurationProblem, match=said):
        require_ids_within(model, named(model), tokenizer)


def test_a_head_of_several_outputs_is_no_reward(reward: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(reward, tmp_path / "classifier")
    reshape(folder, lambda weights: weights | {"score.weight": weights["score.weight"].repeat(5, 1)})
    names = [f"aspect-{number}" for number in range(5)]
    rewrite(folder, id2label=dict(enumerate(names)), label2id={name: number for number, name in enumerate(names)})
    with pytest.raises(ConfigurationProblem, match=r"has a head of 5 outputs \(score\.weight\), and a reward is one"):
        require_head(folder, named(folder))


def test_all_checks_of_a_model_read_its_files_and_build_its_class_once(
    reward: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers of a large model are many, and its class takes seconds."""
    folder = shutil.copytree(reward, tmp_path / "reward")
    asked: list[str] = []

    def counted(kind: str, of: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            asked.append(kind)
            return of(*arguments, **options)

        return call

    monkeypatch.setattr("rlhf_trainer.models.stored.safe_open", counted("file", safe_open))
    model_class = AutoModelForSequenceClassification
    monkeypatch.setattr(model_class, "from_config", counted("class", model_class.from_config))
    for _ in range(2):
        require_architecture(folder, named(folder), "ForSequenceClassification")
        require_head(folder, named(folder))
        require_ids_within(folder, named(folder), tokenizer)
    assert sorted(asked) == ["class", "file"]
    reshape(folder, lambda weights: {name: tensor for name, tensor in weights.items() if name != "score.weight"})
    with pytest.raises(ConfigurationProblem, match="no weights for its head"):
        require_head(folder, named(folder))
    rewrite(folder, intermediate_size=64)
    with pytest.raises(ConfigurationProblem, match=r"and \[.*64.*\] by its config\.json"):
        require_architecture(folder, named(folder), "ForSequenceClassification")
