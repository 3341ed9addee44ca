"""What a manifest keeps in ConfigMaps reaches the stage: chat template, DeepSpeed configuration; and hub tokens from Secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_api.conventions.mounts import config_map_file, hub_token_variable
from rlhf_api.resource.compute import DeepSpeed, DpoOptimization
from rlhf_api.resource.data import PromptSource
from rlhf_api.resource.model import ChatTemplate, Dtype, ModelRef, SourceCredentials
from rlhf_api.resource.storage import ConfigMapKey, SecretReference
from rlhf_trainer.data.sources import hub_token
from rlhf_trainer.models.vocabulary import load_vocabulary
from rlhf_trainer.runtime import config_maps
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.training.rank.engine import deepspeed_config

TEMPLATE = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}{% endfor %}"


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /etc/rlhf of a pod."""
    monkeypatch.setattr(config_maps, "FOLDER", tmp_path)
    return tmp_path


def put(folder: Path, reference: ConfigMapKey, text: str) -> None:
    file = folder / config_map_file(reference)
    file.parent.mkdir(parents=True)
    file.write_text(text)


def test_a_chat_template_of_a_config_map_is_used(mounted: Path, world: Path) -> None:
    reference = ConfigMapKey(name="templates", key="chat.jinja")
    put(mounted, reference, TEMPLATE)
    template = ChatTemplate(config_map_key_ref=reference)
    vocabulary = load_vocabulary(world / "model", template, [], trust_remote_code=False)
    assert vocabulary.tokenizer.chat_template == TEMPLATE


def test_a_config_map_that_is_not_mounted_is_named(mounted: Path, world: Path) -> None:
    template = ChatTemplate(config_map_key_ref=ConfigMapKey(name="templates", key="chat.jinja"))
    with pytest.raises(ConfigurationProblem, match=r"Key chat.jinja of ConfigMap templates \(policy.chatTemplate"):
        load_vocabulary(world / "model", template, [], trust_remote_code=False)


def test_a_whole_deepspeed_configuration_replaces_the_generated_one_but_for_the_micro_batch(mounted: Path) -> None:
    reference = ConfigMapKey(name="deepspeed", key="zero3.json")
    given = {"zero_optimization": {"stage": 3}, "bf16": {"enabled": True}, "train_micro_batch_size_per_gpu": 8}
    put(mounted, reference, json.dumps(given))
    config = deepspeed_config(DeepSpeed(zero_stage=0, config=reference), Dtype.FLOAT32, DpoOptimization())
    assert config == given | {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}


@pytest.mark.parametrize(("text", "wrong"), [("{", "is no JSON"), ("[]", "is no object")])
def test_a_deepspeed_configuration_that_is_none_is_refused(mounted: Path, text: str, wrong: str) -> None:
    reference = ConfigMapKey(name="deepspeed", key="zero3.json")
    put(mounted, reference, text)
    with pytest.raises(ConfigurationProblem, match=wrong):
        deepspeed_config(DeepSpeed(config=reference), Dtype.BFLOAT16, DpoOptimization())


def test_each_source_has_the_token_of_its_own_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(secret: str) -> SourceCredentials:
        return SourceCredentials(secret_ref=SecretReference(name=secret))

    monkeypatch.delenv("HF_TOKEN", raising=False)
    for secret in ("one", "two"):
        monkeypatch.setenv(hub_token_variable(SecretReference(name=secret)), f"token of {secret}")
    assert hub_token(ModelRef(uri="hf://owner/private", credentials=named("one"))) == "token of one"
    assert hub_token(PromptSource(uri="hf://owner/data", credentials=named("two"))) == "token of two"
    assert hub_token(ModelRef(uri="hf://owner/public")) is None
    monkeypatch.setenv("HF_TOKEN", "token of the machine")
    assert hub_token(ModelRef(uri="hf://owner/public")) == "token of the machine"
    assert hub_token(ModelRef(uri="hf://owner/private", credentials=named("elsewhere"))) == "token of the machine"
