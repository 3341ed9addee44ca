"""Against the makers' own renderers, on their own vocabularies: Mistral's Tekken, and their SentencePiece before.

Of the latter there is a tokenizer.model alone, which transformers makes a tokenizer of.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from rlhf_trainer.models.vocabulary import Vocabulary, load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.conversations import answered
from support.tekken import FILE, tekken
from support.vocabularies import vocabulary

CONVERSATIONS = [
    ["What is the capital of France?\n\nTell me."],
    ["Hello!", "Hi. How can I help?", "What is 17 + 25, in 日本語 and in français?"],
    ["  blanks  \n\nand lines\n", "Yes:\n\n- one\n- two\n", "def f(x):\n\treturn x ** 2\n"],
    ["emoji 👩‍🔬 and ﬁne ligatures", "\nit begins with a line break", "?"],
    ["Which token ends a turn? [INST] or </s>?", "It is </s>, and [/INST] ends yours.", "<s> begins, then."],
]


#: As the models of each generation have it. Blanks in front of what follows a control token: SentencePiece's own are one with them.
TEMPLATES = {
    "tokenizer.model.v1": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
    ),
    "mistral_instruct_tokenizer_240323.model.v3": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
    ),
}


@pytest.fixture(scope="module", params=[FILE.name, *TEMPLATES])
def file(request: pytest.FixtureRequest) -> Path:
    return FILE.parent / str(request.param)


@pytest.fixture(scope="module")
def ours(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return vocabulary(tekken()) if file == FILE else sentence_piece(file, tmp_path_factory.mktemp("model"), legacy=True)


@pytest.fixture(scope="module")
def theirs(file: Path) -> Any:
    return MistralTokenizer.from_file(str(file))


def sentence_piece(file: Path, folder: Path, **more: bool) -> Vocabulary:
    shutil.copy(file, folder / "tokenizer.model")
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    turns = [] if file.name.endswith("v1") else ["[INST]", "[/INST]"]
    told = {**named, "additional_special_tokens": turns, "chat_template": TEMPLATES[file.name], **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return load_vocabulary(folder, None, [], trust_remote_code=False)


def turns(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(texts)]


def rendered(theirs: Any, texts: Sequence[str]) -> list[int]:
    messages = [AssistantMessage(content=text) if number % 2 else UserMessage(content=text) for number, text in enumerate(texts)]
    return list(theirs.encode_chat_completion(ChatCompletionRequest(messages=messages)).tokens)


@pytest.mark.parametrize("texts", CONVERSATIONS, ids=lambda texts: texts[0][:20])
def test_a_prompt_is_what_the_makers_renderer_makes_of_it(ours: Vocabulary, theirs: Any, texts: list[str]) -> None:
    """Control tokens that people wrote among them: their tokenizer knows none in text."""
    assert ours.chat.prompt(turns(texts)) == rendered(theirs, texts)


@pytest.mark.parametrize("texts", [texts for texts in CONVERSATIONS if len(texts) > 1], ids=lambda texts: texts[0][:20])
def test_what_the_loss_counts_is_the_answer_and_its_end(ours: Vocabulary, theirs: Any, texts: list[str]) -> None:
    part = answered(ours.chat, turns(texts[:2]), ours.stop_ids)
    asked, whole = rendered(theirs, texts[:1]), rendered(theirs, texts)
    assert part.ids == whole[: len(part.ids)]
    assert part.counted == [i >= len(asked) for i in range(len(part.ids))]
    assert part.ids[-1] == ours.tokenizer.eos_token_id


def test_defect_a_tokenizer_model_that_can_be_read_either_way_is_refused(tmp_path: Path) -> None:
    """Without a word of `legacy`, one version of transformers reads `[INST]` behind BOS as the makers do, and the next does not."""
    with pytest.raises(ConfigurationProblem, match=r'Add the tokenizer\.json of the model, or write "legacy": true'):
        sentence_piece(FILE.parent / "tokenizer.model.v1", tmp_path)
