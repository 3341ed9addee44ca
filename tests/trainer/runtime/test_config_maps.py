"""What a manifest keeps in ConfigMaps reaches the stage, and is what it was; and hub tokens from Secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_api.conventions.mounts import config_map_file, hub_token_variable
from rlhf_api.resource.data import PromptSource
from rlhf_api.resource.model import ChatTemplate, ModelRef, SourceCredentials
from rlhf_api.resource.storage import ConfigMapKey, SecretReference
from rlhf_trainer.data.sources import hub_token
from rlhf_trainer.models.vocabulary import load_vocabulary
from rlhf_trainer.runtime import config_maps
from rlhf_trainer.runtime.errors import ConfigurationProblem

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


def test_a_config_map_that_has_changed_since_the_run_began_is_told(mounted: Path, world: Path) -> None:
    reference = ConfigMapKey(name="templates", key="chat.jinja")
    put(mounted, reference, TEMPLATE)
    template = ChatTemplate(config_map_key_ref=reference)
    before = config_maps.revision_of(TEMPLATE)
    load_vocabulary(world / "model", template, [], trust_remote_code=False, template_revision=before)
    (mounted / config_map_file(reference)).write_text(f"{TEMPLATE}\n")
    with pytest.raises(ConfigurationProblem, match=r"has changed since the run began .* Put the old text back"):
        load_vocabulary(world / "model", template, [], trust_remote_code=False, template_revision=before)


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
