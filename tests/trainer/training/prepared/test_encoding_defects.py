"""Rows of public data sets that came out wrong in silence: each is right now, counted, or refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_api.stage import PromptIdentity
from rlhf_trainer.data.rows import Unusable
from rlhf_trainer.models.questions import identify_by
from rlhf_trainer.models.templates import TemplateRefusal
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.conversations import assistant, counted_text, demonstrations, llama3, preferences, qwen2_5, qwen3, user
from support.vocabularies import CHATML, LLAMA3, template, tokenizer, vocabulary


def test_defect_what_a_tool_answered_is_not_left_out() -> None:
    """Sets keep calls as text, so that only the role says that there was one; a template may know no such role."""
    turns = [user("Weather?"), assistant('<tool_call>{"name": "w"}</tool_call>'), {"role": "tool", "content": "18 degrees"}]
    phi = vocabulary(tokenizer(("<s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"), template("phi3"), eos="<|end|>"))
    with pytest.raises(ConfigurationProblem, match="leaves out what the tool says"):
        demonstrations([{"messages": [*turns, assistant("18.")]}], phi)
    with pytest.raises(TemplateRefusal, match="leaves out what the tool says"):
        phi.chat.asked([*turns, user("So?")])


def test_defect_a_marked_template_that_answers_what_is_never_asked_is_refused() -> None:
    """It asks with <think> behind the header, and trains answers without."""
    bar = "\uff5c"
    names = [f"<{bar}{name}{bar}>" for name in ("begin\u2581of\u2581sentence", "end\u2581of\u2581sentence", "User", "Assistant")]
    found = tokenizer(names, template("deepseek_r1_distill_training"), bos=names[0], eos=names[1], plain=("<think>", "</think>"))
    with pytest.raises(ConfigurationProblem, match="answer what is never asked"):
        demonstrations([{"messages": [user("hi"), assistant("one")]}], vocabulary(found))


def test_defect_a_marked_answer_ends_in_every_turn_as_it_does_when_it_is_sampled() -> None:
    """Harmony closes earlier answers with <|end|>, at which no sampler stops: trained in one piece, half of them would not end."""
    controls = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>")
    harmony = vocabulary(tokenizer(controls, template("gptoss_training"), eos="<|return|>"), stops=[5, 6])
    turns = [user("a"), assistant("one"), user("b"), assistant("two")]
    examples = demonstrations([{"messages": turns}], harmony)
    assert [counted_text(harmony, example) for example in examples] == [
        f"<|channel|>final<|message|>{said}<|return|>" for said in ("one", "two")
    ]


def test_defect_a_header_that_no_prompt_ends_with_is_not_taken_for_the_answer() -> None:
    """Behind what a tool answered it asks without a header, and writes one in front of the answer."""
    names = ("turn", "tool", "tool_call", "tool_response", "channel")
    controls = ("<eos>", "<bos>", *(f"<|{name}>" for name in names), *(f"<{name}|>" for name in names))
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    schema = {"name": "get_weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}
    answered = [assistant("", tool_calls=[call]), {"role": "tool", "name": "get_weather", "content": "18 C"}, assistant("18 C.")]
    row = {"messages": [user("Weather?"), *answered], "tools": [{"type": "function", "function": schema}]}
    for name in ("diffusion_gemma", "diffusion_gemma_training"):
        under = vocabulary(tokenizer(controls, template(name), bos="<bos>", eos="<turn|>"))
        with pytest.raises(ConfigurationProblem, match=r"row 1: .* writes '<\|turn>model\\n' in front of an answer, and not where"):
            demonstrations([row], under)


def test_a_marked_template_is_not_trained_to_write_headers() -> None:
    under = vocabulary(tokenizer(CHATML, template("qwen2_5_training"), eos="<|im_end|>"))
    [example] = demonstrations([{"messages": [user("hi"), assistant("one")]}], under)
    assert counted_text(under, example) == "one<|im_end|>"


def test_defect_a_character_for_private_use_stays_itself_beside_a_control_token() -> None:
    under = llama3()
    text = "Icon \U000f0000 here; what is <|eot_id|>?"
    assert text in under.tokenizer.decode(under.chat.prompt([user(text)]))
    assert under.tokenizer.decode(under.chat.prompt([user(text)])).count("<|eot_id|>") == 2


def test_defect_a_role_marker_that_is_not_called_special_is_kept_out_of_content() -> None:
    """R1's distilled models ship them so, and a tokenizer splits only what is special: the row is refused."""
    marker = "<\uff5cAssistant\uff5c>"
    lines = "{{ bos_token }}{% for m in messages %}<\uff5c{{ m.role | capitalize }}\uff5c>{{ m.content }}{% endfor %}"
    asked = f"{{% if add_generation_prompt %}}{marker}{{% endif %}}"
    under = vocabulary(tokenizer(("<bos>", "<eos>"), lines + asked, bos="<bos>", eos="<eos>", plain=("<\uff5cUser\uff5c>", marker)))
    with pytest.raises(TemplateRefusal, match="cannot be made to read it as text"):
        under.chat.prompt([user(f"What does {marker} do?")])


def test_defect_the_second_of_two_calls_and_what_is_said_beside_one_are_not_lost() -> None:
    def call(city: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": "get_weather", "arguments": {"city": city}}}

    controls = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>")
    harmony = vocabulary(tokenizer(controls, template("gptoss"), eos="<|return|>"), stops=[5, 6])
    schema = {"name": "get_weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": schema}]
    two = {"messages": [user("Paris, Rome?"), assistant("", tool_calls=[call("Paris"), call("Rome")])], "tools": tools}
    with pytest.raises(ConfigurationProblem, match="leaves out tool_calls"):
        demonstrations([two], harmony)
    counts: dict[str, int] = {}
    llama31 = vocabulary(tokenizer((*LLAMA3, "<|python_tag|>"), template("llama3_1"), bos=LLAMA3[0], eos=LLAMA3[4]))
    beside = {"messages": [user("Paris?"), assistant("Let me look.", tool_calls=[call("Paris")])], "tools": tools}
    demonstrations([beside], llama31, counts)
    assert counts["notRendered/content"] == 1


def test_defect_reasoning_reaches_a_template_by_the_name_that_it_reads() -> None:
    controls = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>")
    harmony = vocabulary(tokenizer(controls, template("gptoss"), eos="<|return|>"), stops=[5, 6])
    [example] = demonstrations([{"messages": [user("2+3?"), assistant("5", thinking="two and three")]}], harmony)
    assert "two and three" in counted_text(harmony, example)


def test_defect_what_is_templated_already_is_not_trained_on() -> None:
    counts: dict[str, int] = {}
    asked = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    rows = [{"prompt": asked, "response": "Hello"}, {"prompt": "hi", "response": "Hello<|im_end|>\n"}]
    rows += [{"prompt": f"hi {number}", "response": "Hello"} for number in range(4)]
    assert len(demonstrations(rows, qwen2_5(), counts)) == 4
    assert counts["unusable/alreadyTemplated"] == 2


def test_defect_half_a_character_costs_its_row_and_is_no_traceback() -> None:
    counts: dict[str, int] = {}
    rows = [{"prompt": "cut \ud83d", "response": "ok"}, {"prompt": "whole", "response": "ok"}]
    assert len(demonstrations(rows, llama3(), counts)) == 1
    assert counts["unusable/notUnicode"] == 1


def test_an_answer_that_is_part_of_what_closes_it_is_counted_whole() -> None:
    under = qwen2_5()
    [example] = demonstrations([{"messages": [user("which?"), assistant(">")]}], under)
    assert counted_text(under, example) == "><|im_end|>"


def test_a_pair_that_the_template_makes_equal_is_none() -> None:
    counts: dict[str, int] = {}
    assert preferences([{"prompt": "q", "chosen": "Yes.", "rejected": "Yes.\n"}], llama3(), counts) == []
    assert counts["pairsEqual"] == 1


def test_defect_an_answer_that_begins_with_a_control_token_somebody_wrote_is_counted_from_its_first_letter() -> None:
    said = "<|eot_id|> is written behind every message."
    under = llama3()
    [example] = demonstrations([{"messages": [user("What ends a turn?"), assistant(said)]}], under)
    assert counted_text(under, example) == f"{said}<|eot_id|>"
    other = "<|eot_id|> is the end."
    [pair] = preferences([{"prompt": "What ends a turn?", "chosen": said, "rejected": other}], under)
    assert pair.prompt == under.chat.prompt([user("What ends a turn?")])


@pytest.mark.parametrize("under", [llama3(), qwen3()], ids=["llama3", "qwen3"])
def test_a_conversation_none_of_whose_answers_is_trained_is_counted(under: Vocabulary) -> None:
    counts: dict[str, int] = {}
    row = {"messages": [user("a"), assistant("b", weight=0), user("c"), assistant("d", weight=0)]}
    assert demonstrations([row], under, counts) == []
    assert counts["conversations"] == counts["conversationsWithoutAnswer"] == 1


def knows_few_words(template_of: str) -> Vocabulary:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<bos>", "<eos>", "<unk>", "user", "assistant", "sort", "a", "b"]
    raw = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")
    found.chat_template = template_of
    return vocabulary(found)


PLAIN = (
    "{{ bos_token }}{% for m in messages %} {{ m.role }} {{ m.content }} <eos>{% endfor %}"
    "{% if add_generation_prompt %} assistant{% endif %}"
)


def test_defect_letters_that_a_tokenizer_does_not_know_are_not_trained_on() -> None:
    under = knows_few_words(PLAIN)
    known = {"messages": [user("sort b a"), assistant("a b")]}
    assert len(demonstrations([known], under)) == 1
    with pytest.raises(ConfigurationProblem, match=r"row 1: the tokenizer has no tokens for .*: 2 of \d+ tokens are '<unk>'"):
        demonstrations([{"messages": [user("sort my letters"), assistant("a b")]}], under)
    pair = {"prompt": "sort b a", "chosen": "a b", "rejected": "never"}
    with pytest.raises(ConfigurationProblem, match=r"1 of 1 rows? cannot be used .*'<unk>'"):
        preferences([pair], under)
    identify = identify_by(PromptIdentity.RENDERED, under.chat)
    identify([user("sort b a")])
    with pytest.raises(Unusable) as raised:
        identify([user("sort my letters")])
    assert raised.value.reason == "unknownLetters"


def test_a_tokenizer_of_bytes_knows_all_letters_though_it_calls_its_end_unknown() -> None:
    under = llama3()
    under.tokenizer.unk_token = "<|eot_id|>"
    again = vocabulary(under.tokenizer)
    assert len(demonstrations([{"messages": [user("\ua66e?"), assistant("\U0001f732!")]}], again)) == 1
