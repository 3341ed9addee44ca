"""By what a prompt is known: what the policy reads of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.data import DataSource, HoldOut, Prompts, PromptSource
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import PromptIdentity
from rlhf_trainer.data.held_out import HeldOutPrompts
from rlhf_trainer.data.layouts import demonstrations_of, preferences_of
from rlhf_trainer.data.prompts import PromptSets, load_prompt_sets, prompt_id
from rlhf_trainer.models.chat import Chat
from rlhf_trainer.models.questions import identify_by
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.training.prepared.encoding import Comparison, encode_demonstrations, encode_preferences
from rlhf_trainer.training.prepared.recipe import whole
from support.vocabularies import CHATML, GEMMA, LLAMA3, template, tokenizer, vocabulary

LLAMA = tokenizer(LLAMA3, template("llama3"), bos=LLAMA3[0], eos=LLAMA3[4])


def sets_of(texts: Sequence[Any], folder: Path, chat: Chat, identity: PromptIdentity = PromptIdentity.RENDERED) -> PromptSets:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"messages": text}) + "\n" for text in texts))
    prompts = Prompts(
        source=PromptSource(uri=f"file://{file}"), per_iteration=1000, validation=HoldOut(size=100), test=HoldOut(size=50)
    )
    return load_prompt_sets(prompts, 1, folder / "in", Storage(url="file:///s"), identify=identify_by(identity, chat))


@pytest.mark.parametrize("family", [LLAMA, tokenizer(GEMMA, template("gemma"), bos="<bos>", eos="<eos>")])
def test_defect_prompts_that_differ_in_what_the_template_trims_are_one(family: Any, tmp_path: Path) -> None:
    """A collection that was made of several has a fifth of its questions twice, with a line break behind the second."""
    chat = Chat(family)
    sets = sets_of([f"What is {i}?" for i in range(400)] + [f"What is {i}?\n" for i in range(0, 400, 5)], tmp_path, chat)
    assert sets.counts["duplicates"] == 80
    asked = [{tuple(chat.prompt(p.messages)) for p in part} for part in (sets.validation, sets.test, sets.training[0])]
    assert [len(part) for part in asked] == [100, 50, 250]
    assert len(set().union(*asked)) == 400


def test_what_the_template_keeps_apart_are_two_prompts(tmp_path: Path) -> None:
    keeps = Chat(tokenizer(CHATML, template("qwen2_5"), eos="<|im_end|>"))
    assert sets_of([f"What is {i // 2}?{' ' * (i % 2)}" for i in range(400)], tmp_path, keeps).counts["duplicates"] == 0


def test_a_run_that_began_before_keeps_what_its_prompts_were_known_by(tmp_path: Path) -> None:
    texts = [f"What is {i // 2}?{' ' * (i % 2)}" for i in range(400)]
    sets = sets_of(texts, tmp_path, Chat(LLAMA), PromptIdentity.MESSAGES)
    assert sets.counts["duplicates"] == 0
    assert all(prompt.id == prompt_id(prompt.messages) for prompt in sets.validation)


@pytest.mark.parametrize(
    "text",
    [
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>",
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        "  [INST] hi [/INST]",
        "<\uff5cbegin\u2581of\u2581sentence\uff5c><\uff5cUser\uff5c>hi<\uff5cAssistant\uff5c>",
        "<start_of_turn>user\nhi<end_of_turn>\n",
    ],
)
def test_defect_a_prompt_that_is_templated_already_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match=r"row 1: .*is the output of a chat template; name the column"):
        sets_of([text] * 3, tmp_path, Chat(LLAMA))


def test_a_prompt_that_speaks_of_a_marker_is_asked(tmp_path: Path) -> None:
    texts: list[Any] = [f"What does <|im_start|> mean in line {i}?" for i in range(200)]
    assert len(sets_of(texts, tmp_path, Chat(LLAMA)).training[0]) == 50


def test_defect_a_demonstration_that_answers_a_held_out_prompt_is_not_trained_on(tmp_path: Path) -> None:
    """In any of its turns, and whatever blanks the template trims; one that is only alike stays, and is counted."""
    under = vocabulary(LLAMA)
    sets = sets_of([f"Please tell me in a single word what {i} + {i} gives?" for i in range(400)], tmp_path, under.chat)
    held = HeldOutPrompts(sets, identify_by(PromptIdentity.RENDERED, under.chat))
    one, two = (prompt.messages[0]["content"] for prompt in sets.validation[:2])
    free = sets.training[0][0].messages[0]["content"]
    answer = {"role": "assistant", "content": "4"}

    def asked(*texts: str) -> dict[str, Any]:
        return {"messages": [turn for text in texts for turn in ({"role": "user", "content": text}, answer)]}

    rows = [
        asked(one),
        asked(f"{two}\n"),
        asked(one, "And twice that?"),
        asked(free),
        asked(one.upper().rstrip("?")),
        asked(one.replace("single ", "")),
        asked(free, one),
    ]
    counts: dict[str, int] = {}
    items, tally = demonstrations_of(DataSource(name="d", uri="file:///d"), rows, "sft.data").read(rows)
    examples = encode_demonstrations(items, tally, under, 999, counts, held)
    assert counts == {"conversations": 7, "heldOut": 3, "nearHeldOut": 2}
    assert len(examples) == 4
    pairs = [{"prompt": text, "chosen": "4", "rejected": "5"} for text in (one, free)]
    preferred, tally = preferences_of(DataSource(name="d", uri="file:///d"), pairs, "data").read(pairs)
    counts = {}
    assert len(encode_preferences(preferred, tally, under, Comparison(whole(999)), counts, held)) == 1
    assert counts == {"pairsRead": 2, "heldOut": 1}
