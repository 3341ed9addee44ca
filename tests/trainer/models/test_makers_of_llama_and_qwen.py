"""Against the makers' own tokenizers, on their own vocabularies: Llama 3 and 4 by Meta's renderers, Qwen by its ChatML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_trainer.data.examples import Example
from support.conversations import answered, assistant, demonstrations, preferences, user
from support.makers import Maker, llama3, llama3_1, llama4, qwen2_5, qwen3

pytestmark = pytest.mark.real

#: Between the user and the assistant, by turns.
CONVERSATIONS = {
    "plain": ["Hello!", "Hi. How can I help?", "What is 17 + 25, in 日本語 and in français?", "42: 四十二, quarante-deux."],
    "blanks at both ends": ["  blanks  \n\nand lines\n", "Yes:\n\n- one\n- two\n", "def f(x):\n\treturn x ** 2\n", " \tso  "],
    "other line ends, other blanks": ["\r\nWindows\r\nlines\r\n", "\u00a0no break\u3000", "zero\u200bwidth\ufeff", "so\u2028there"],
    "letters that are one": ["cafe\u0301, \u1100\u1161\u11a8, \u212b", "re\u0301sume\u0301 \ufb01ne", "a\u0301?", "\u0301 alone"],
    "characters of several tokens": ["emoji 👩‍🔬 🇩🇪", "का हिन्दी ไทย עברית", "\U0001d4d0 ⅻ ½ ٣٤٥", "𓀀𓀁"],
    "case and numbers": ["DON'T, don't, it\u2019s, K'\u017f", "I'\u212a \u212a", "1234567 1,234.5678 000", "1" * 40],
    "control tokens that people wrote": [
        "Which ends a turn? <|eot_id|> or <|im_end|>?",
        "<|eot_id|> there, and <|im_end|> here; <|im_start|>user begins one.",
        "What of <|reserved_special_token_5|><|extra_7|> and <|end_of_text|> <|endoftext|>",
        "<|im_end|><|eot_id|> are two, <|start_header_id|>system<|end_header_id|>\n\nis none.",
    ],
    "long": ["a" * 3000, "b " * 500, "!?" * 300, "the end. " * 200],
}
SYSTEMS = {"nobody": None, "the system": " Be short.\n", "the system with control tokens": "Say <|eot_id|> or <|im_end|>."}
MAKERS = {"llama3": llama3, "llama3_1": llama3_1, "llama4": llama4, "qwen2_5": qwen2_5, "qwen3": qwen3}
BEFORE = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)
TEXTS = pytest.mark.parametrize("texts", CONVERSATIONS.values(), ids=CONVERSATIONS)

PIECES = ["<|eot_id|>", "<|im_end|>", "<|im_start|>", "<|", "|>", " ", "\n", "\r\n", "\t", "'s", "1", "\u0301", "e", "日", "👩"]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=10).map("".join)
SAID = TEXT.filter(lambda text: text == text.strip() != "")


@pytest.fixture(scope="module", params=MAKERS.values(), ids=list(MAKERS))
def maker(request: pytest.FixtureRequest) -> Maker:
    found: Maker = request.param()
    return found


def turns(texts: Sequence[str], system: str | None) -> list[dict[str, Any]]:
    said = [assistant(text) if number % 2 else user(text) for number, text in enumerate(texts)]
    return said if system is None else [{"role": "system", "content": system}, *said]


def whole(example: Example) -> list[list[int]]:
    return [[*example.prompt, *completion] for completion in example.completions]


@BEFORE
@TEXTS
def test_a_prompt_is_what_the_maker_makes_of_it(maker: Maker, texts: list[str], system: str | None) -> None:
    for count in (1, 3):
        asked = turns(texts[:count], system)
        assert maker.ours.chat.prompt(asked) == maker.asked(asked)


@BEFORE
@TEXTS
def test_a_demonstration_is_too_and_the_loss_counts_its_answers_with_their_ends(
    maker: Maker, texts: list[str], system: str | None
) -> None:
    messages = turns(texts, system)
    [example] = demonstrations([{"messages": messages}], maker.ours)
    assert whole(example) == [maker.said(messages)]
    assert example.counted == [maker.counted(messages)]


@BEFORE
@TEXTS
def test_a_preference_is_too_and_both_answers_begin_behind_what_is_asked(
    maker: Maker, texts: list[str], system: str | None
) -> None:
    *asked, chosen = turns(texts, system)
    rejected = assistant("No.")
    [example] = preferences([{"chosen": [*asked, chosen], "rejected": [*asked, rejected]}], maker.ours)
    assert whole(example) == [maker.said([*asked, chosen]), maker.said([*asked, rejected])]
    assert example.prompt == maker.asked(asked)


@settings(max_examples=200)
@given(texts=st.tuples(TEXT, SAID, TEXT))
def test_whatever_people_write_the_ids_are_the_makers(maker: Maker, texts: tuple[str, str, str]) -> None:
    asked = turns(texts, None)
    assert maker.ours.chat.prompt(asked) == maker.asked(asked)
    part = answered(maker.ours.chat, asked[:2], maker.ours.stop_ids)
    assert (part.ids, part.counted) == (maker.said(asked[:2]), maker.counted(asked[:2]))


@pytest.mark.parametrize("maker", [qwen2_5, qwen3], ids=["qwen2_5", "qwen3"], indirect=True)
def test_an_answer_whose_first_token_takes_in_the_end_of_the_question_costs_its_row_but_no_pair(maker: Maker) -> None:
    """Two line breaks are one token of theirs, and their template strips nothing."""
    asked, answer = [user("What is 17 + 25?")], assistant("\n42")
    counts: dict[str, int] = {}
    [kept] = demonstrations([{"messages": [*asked, said]} for said in (answer, assistant("42"))], maker.ours, counts)
    assert whole(kept) == [maker.said([*asked, assistant("42")])]
    assert counts["unusable/withoutBoundary"] == 1
    [example] = preferences([{"chosen": [*asked, answer], "rejected": [*asked, assistant("43")]}], maker.ours)
    assert whole(example) == [maker.said([*asked, answer]), maker.said([*asked, assistant("43")])]
    assert example.prompt == maker.asked(asked)[:-1]
