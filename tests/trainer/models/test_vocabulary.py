"""Tokenizers from a folder: what tokenizer.json says, whatever else lies there."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from rlhf_api.resource.model import ChatTemplate, ChatTemplateName
from rlhf_trainer.models.templates import Guarded, Template, TemplateRefusal
from rlhf_trainer.models.vocabulary import Vocabulary, load_tokenizer, load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.documents import blocks
from support.vocabularies import LLAMA3, template, tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a model that its makers say is a Mistral, as transformers then takes another tokenizer class."""
    tokenizer(LLAMA3, template("llama3_2"), bos=LLAMA3[0], eos=LLAMA3[4]).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mistral", "vocab_size": 131072}))
    return tmp_path


def load(folder: Path, chosen: ChatTemplate | None = None) -> Vocabulary:
    return load_vocabulary(folder, chosen, [], trust_remote_code=False)


def test_defect_what_lies_beside_tokenizer_json_changes_nothing(folder: Path) -> None:
    before = load(folder)
    (folder / "tekken.json").write_text("{}")
    after = load(folder)
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    assert after.chat.prompt(turns) == before.chat.prompt(turns)
    assert after.template_hash == before.template_hash


def test_a_date_alone_keeps_the_tokenizers_own_template(folder: Path) -> None:
    told = load(folder, ChatTemplate(date=date(2026, 11, 30)))
    assert "30 Nov 2026" in told.chat.asked([{"role": "user", "content": "hi"}])
    assert told.chat.template.source == load(folder).chat.template.source
    named = load(folder, ChatTemplate(name=ChatTemplateName.LLAMA_3, date=date(2026, 11, 30)))
    assert named.chat.template.source != told.chat.template.source


@pytest.mark.parametrize("spoilt", ["", "[]", "{", '{"version": "9.9"}', '{"model": {"type": "NoSuch"}}'])
def test_a_damaged_tokenizer_is_told_in_words(folder: Path, spoilt: str) -> None:
    (folder / "tokenizer.json").write_text(spoilt)
    with pytest.raises(ConfigurationProblem, match="holds no tokenizer that transformers can load"):
        load_tokenizer(folder, trust_remote_code=False)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
def test_a_damaged_configuration_is_told_in_words(folder: Path, name: str) -> None:
    (folder / name).write_text("[1]")
    with pytest.raises(ConfigurationProblem):
        load(folder)


def test_a_template_that_asks_for_what_differs_between_machines_is_refused() -> None:
    """Seconds since 1970 at midnight: of a time zone."""
    asked = Guarded([], None)
    for form in ("%s", "%-s", "%Y%s"):
        with pytest.raises(TemplateRefusal, match="differs between machines"):
            Template(tokenizer(LLAMA3, f"{{{{ strftime_now('{form}') }}}}")).text(asked, ask=True)
    assert Template(tokenizer(LLAMA3, "{{ strftime_now('%%s %S') }}")).text(asked, ask=True) == "%s 00"


def test_what_a_conversation_becomes_is_shown_by_the_lines_in_the_documents(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = (block.text for block in blocks("python") if "load_vocabulary" in block.text)
    (folder / "model").mkdir()
    for file in folder.glob("*.j*"):
        file.rename(folder / "model" / file.name)
    monkeypatch.chdir(folder)
    exec(code, {})
    whole, _, counted = capsys.readouterr().out.rpartition("\nHi.")
    assert "Hello" in whole
    assert counted == "<|eot_id|>\n"
