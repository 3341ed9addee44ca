"""Against the makers' own renderer, on their own vocabulary: Mistral's, of 131,072 tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from rlhf_trainer.models.vocabulary import Vocabulary
from support.tekken import FILE, tekken
from support.vocabularies import vocabulary

CONVERSATIONS = [
    ["What is the capital of France?\n\nTell me."],
    ["Hello!", "Hi. How can I help?", "What is 17 + 25, in 日本語 and in français?"],
    ["  blanks  \n\nand lines\n", "Yes:\n\n- one\n- two\n", "def f(x):\n\treturn x ** 2\n"],
    ["emoji 👩‍🔬 and ﬁne ligatures", "\nit begins with a line break", "?"],
    ["Which token ends a turn? [INST] or </s>?", "It is </s>, and [/INST] ends yours.", "<s> begins, then."],
]


@pytest.fixture(scope="module")
def ours() -> Vocabulary:
    return vocabulary(tekken())


@pytest.fixture(scope="module")
def theirs() -> Any:
    return MistralTokenizer.from_file(str(FILE))


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
    [part] = ours.chat.conversation(turns(texts[:2]), ours.stop_ids)
    asked, whole = rendered(theirs, texts[:1]), rendered(theirs, texts)
    assert part.ids == whole[: len(part.ids)]
    assert part.counted == [i >= len(asked) for i in range(len(part.ids))]
    assert part.ids[-1] == ours.tokenizer.eos_token_id
