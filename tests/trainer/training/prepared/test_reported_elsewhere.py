"""Masks and ids that other trainers got wrong, as their trackers tell it: each is right here, or refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_trainer.models.vocabulary import load_vocabulary
from support.conversations import assistant, counted_text, demonstrations, llama3, user
from support.vocabularies import CHATML, GEMMA, template, tokenizer, vocabulary

TURNS = [user("a"), assistant("one"), user("b"), assistant("two")]


@pytest.mark.parametrize("close", ["\n{% endgeneration %}", "{% endgeneration %}\n"], ids=["blanks inside", "blanks outside"])
@pytest.mark.parametrize("flags", [{}, {"lstrip": True}, {"rstrip": True}], ids=["kept", "stripped before", "stripped behind"])
def test_a_mark_that_ends_in_blanks_which_a_token_strips_takes_no_other_turn_in(close: str, flags: dict[str, bool]) -> None:
    """huggingface/transformers#47325: where no token holds its last character, all that follows is the assistant's."""
    from tokenizers import AddedToken

    said = "{% generation %}{{ m.content }}<|im_end|>" + close
    lines = (
        "{% for m in messages %}<|im_start|>{% if m.role == 'assistant' %}"
        + said
        + "{% else %}{{ m.content }}<|im_end|>\n{% endif %}"
    )
    chat = lines + "{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
    found = tokenizer(CHATML, chat, eos="<|im_end|>")
    found.add_tokens([AddedToken(token, special=True, normalized=False, **flags) for token in CHATML[1:]], special_tokens=True)
    under = vocabulary(found)
    [example] = demonstrations([{"messages": TURNS}], under)
    assert counted_text(under, example) == "one<|im_end|>two<|im_end|>"
    assert list(example.completions[0]) == found.apply_chat_template(TURNS, tokenize=True, return_dict=False)


def test_a_template_that_ends_its_last_answer_alone_trains_the_end_of_each() -> None:
    """allenai/open-instruct#1800: OLMo's write EOS behind the last answer, so that no part of a conversation begins the whole."""
    chat = (
        "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
        "{% if loop.last and m.role == 'assistant' %}{{ eos_token }}{% else %}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    under = vocabulary(tokenizer(("<bos>", "<eos>"), chat, bos="<bos>", eos="<eos>"))
    examples = demonstrations([{"messages": TURNS}], under)
    assert [counted_text(under, example) for example in examples] == ["one<eos>", "two<eos>"]
    assert [list(example.completions[0]) for example in examples] == [
        under.tokenizer.apply_chat_template(TURNS[:end], tokenize=True, return_dict=False) for end in (2, 4)
    ]


def test_an_end_of_turn_that_is_no_eos_is_trained_and_stops(tmp_path: Path) -> None:
    """axolotl-ai-cloud/axolotl#3754: Gemma's EOS is `<eos>`, its turns end otherwise, and nobody learned to stop."""
    tokenizer(GEMMA, template("gemma"), bos="<bos>", eos="<eos>").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
    under = load_vocabulary(tmp_path, None, [], trust_remote_code=False)
    assert under.tokenizer.convert_tokens_to_ids("<end_of_turn>") in under.stop_ids
    [example] = demonstrations([{"messages": TURNS}], under)
    assert counted_text(under, example) == "one<end_of_turn>two<end_of_turn>"


def qwen3_5(name: str) -> Any:
    return vocabulary(tokenizer(CHATML, template(name), eos="<|im_end|>", plain=("<think>", "</think>")))


@pytest.mark.parametrize("name", ["qwen3_5_think", "qwen3_5_think_training"])
def test_reasoning_within_an_answer_is_trained_once_and_behind_one_opening(name: str) -> None:
    """huggingface/trl#6361: a prompt ends in <think>, so that a sampled answer has the end of the block alone: a second one was
    opened and closed in front of it.
    """
    under = qwen3_5(name)
    [example] = demonstrations([{"messages": [user("2+3?"), assistant("<think>\nFive.\n</think>\n\n5")]}], under)
    assert counted_text(under, example) == "Five.\n</think>\n\n5<|im_end|>"
    assert under.tokenizer.decode(example.completions[0]).count("<think>") == 1
    sampled = {"messages": [user("2+3?"), assistant("Five.\n</think>\n\n5")]}
    assert demonstrations([sampled], under) == [example]


def test_calls_that_are_an_empty_list_are_none() -> None:
    """vllm-project/vllm#13978: Arrow gives them to every message, and a template takes the answer for a call."""
    said = [user("hi"), assistant("one", tool_calls=[]), user("b"), assistant("two", tool_calls=None)]
    assert demonstrations([{"messages": said, "tools": []}], llama3()) == demonstrations(
        [{"messages": [user("hi"), assistant("one"), user("b"), assistant("two")]}], llama3()
    )
