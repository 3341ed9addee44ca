"""Rows of public data sets: recognised, read, or counted by reason; and what is said of a set that fits nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.resource.data import DataLayout, DataSource, PromptSource, Role
from rlhf_trainer.data.layouts import Preference, demonstrations_of, preferences_of, questions_of
from rlhf_trainer.data.messages import functions_of
from rlhf_trainer.data.rows import Tally, Unparsable, Unusable
from rlhf_trainer.runtime.errors import ConfigurationProblem

URI = "file:///d.jsonl"


def source(**more: Any) -> DataSource:
    return DataSource(name="d", uri=URI, **more)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def said(row: dict[str, Any], **more: Any) -> tuple[list[tuple[str, str]], str]:
    """Role and content of a demonstration's turns, and its layout."""
    items, tally = demonstrations_of(source(**more), [row], "sft.data").read([row])
    tally.require_usable()
    [item] = items
    return [(message["role"], message["content"]) for message in item.messages], tally.layout


def pair(row: dict[str, Any], **more: Any) -> tuple[Preference, Tally]:
    items, tally = preferences_of(source(**more), [row], "reward.bradleyTerry.train.data").read([row])
    tally.require_usable()
    [item] = items
    return item, tally


ASKED = [("user", "2+2?"), ("assistant", "4")]


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        ({"messages": [user("2+2?"), assistant("4")]}, "Messages"),
        ({"conversations": [user("2+2?"), assistant("4")]}, "Messages"),
        ({"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}, "Messages"),
        ({"messages": [{"role": "Human", "content": "2+2?"}, {"role": "Assistant", "content": "4"}]}, "Messages"),
        ({"messages": json.dumps([user("2+2?"), assistant("4")])}, "Messages"),
        ({"messages": "\n\nHuman: 2+2?\n\nAssistant: 4"}, "Messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]},
                       assistant("4")]}, "Messages"),
        ({"messages": [user("2+2?"), {"role": "assistant", "content": "4", "tool_calls": None, "name": None}]}, "Messages"),
        ({"messages": [user("2+2?"), assistant("4"), user("and 3?")]}, "Messages"),
        ({"prompt": "2+2?", "response": "4"}, "PromptResponse"),
        ({"question": "2+2?", "answer": "4", "id": 7}, "PromptResponse"),
        ({"instruction": "2+2?", "input": "", "output": "4"}, "PromptResponse"),
    ],
)  # fmt: skip
def test_demonstrations_of_the_usual_layouts_are_the_same_conversation(row: dict[str, Any], layout: str) -> None:
    assert said(row) == (ASKED, layout)


def test_an_instruction_goes_on_in_its_input_and_a_system_prompt_comes_first() -> None:
    assert said({"instruction": "Add.", "input": "2 and 2", "output": "4"})[0][0] == ("user", "Add.\n\n2 and 2")
    assert said({"system_prompt": "Be short.", "question": "2+2?", "response": "4"})[0] == [("system", "Be short."), *ASKED]
    assert said({"system": "Be short.", "conversations": [user("2+2?"), assistant("4")]})[0] == [("system", "Be short."), *ASKED]


def test_the_manifest_decides_where_a_set_fits_twice() -> None:
    both = {"conversations": [user("2+2?"), assistant("4")], "prompt": "2+2?", "response": "four"}
    with pytest.raises(ConfigurationProblem, match=r"fits two layouts.*sft\.data\.layout: Messages or PromptResponse"):
        said(both)
    assert said(both, layout=DataLayout.MESSAGES)[0] == ASKED
    assert said(both, layout=DataLayout.PROMPT_RESPONSE)[0][1] == ("assistant", "four")
    assert said({"dialogue": [user("2+2?"), assistant("4")], "messages": "x"}, column="dialogue")[0] == ASKED
    own = {"messages": [{"role": "speaker_1", "content": "2+2?"}, {"role": "speaker_2", "content": "4"}]}
    assert said(own, roles={"speaker_1": Role.USER, "speaker_2": Role.ASSISTANT})[0] == ASKED
    with pytest.raises(ConfigurationProblem, match=r"role 'speaker_1'; write under roles"):
        said(own)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "once upon a time"}, "no layout of demonstrations (its columns are text)"),
        ({"prompt": "a", "question": "b", "response": "c"}, "no layout of demonstrations"),
        ({"messages": None}, "row 1: column messages: there is null"),
        ({"messages": []}, "list of messages is empty"),
        ({"messages": [user("a"), {"role": "assistant", "content": None}]}, "a content of null"),
        ({"messages": [user("a"), assistant(" \n")]}, "says nothing"),
        ({"messages": [assistant("a")]}, "begins with the assistant"),
        ({"messages": [user("a"), user("b"), assistant("c")]}, "turns 1 and 2 are both of the user"),
        ({"messages": [user("a")]}, "the assistant says nothing in it"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, assistant("a")]}, "part of type 'image_url'"),
        ({"messages": [user("a"), {"role": "assistant", "content": "b", "weight": 0.5}]}, "weight 0.5"),
        ({"messages": [user("a"), assistant("b")], "images": ["x.png"]}, "column images"),
        ({"messages": [user("a"), {"role": "assistant", "content": "", "tool_calls": "not json"}]}, "no JSON"),
        ({"messages": "plain text"}, "'plain text' is text"),
        ({"messages": 7}, "7 is no list"),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]]}, "column history"),
        ({"prompt": "a", "response": None}, "column response holds None"),
        ({"prompt": "a", "completion": "b", "label": False}, "column label says whether the answer is good"),
        ({"instruction": "Summarise.", "context": "A passage.", "response": "b"}, "column context belongs to the question"),
        ({"messages": "Assistant:"}, "nobody says anything"),
    ],
)  # fmt: skip
def test_a_demonstration_that_cannot_be_used_is_refused_in_words(row: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationProblem) as raised:
        said(row)
    assert words in str(raised.value)
    assert URI in str(raised.value)


@pytest.mark.parametrize(
    ("row", "layout", "margin"),
    [
        ({"chosen": [user("q"), assistant("yes")], "rejected": [user("q"), assistant("no")]}, "ChosenRejected", None),
        ({"prompt": [user("q")], "chosen": [assistant("yes")], "rejected": [assistant("no")]}, "PromptChosenRejected", None),
        ({"prompt": "q", "chosen": "yes", "rejected": "no"}, "PromptChosenRejected", None),
        ({"question": "q", "chosen": "yes", "rejected": "no", "system": ""}, "PromptChosenRejected", None),
        ({"chosen": "\n\nHuman: q\n\nAssistant: yes", "rejected": "\n\nHuman: q\n\nAssistant: no"}, "ChosenRejected", None),
        ({"prompt": "q", "prompt_id": "1", "chosen": [user("q"), assistant("yes")], "rejected": [user("q"), assistant("no")],
          "messages": [user("q"), assistant("yes")], "score_chosen": 8.0, "score_rejected": 5.5}, "ChosenRejected", 2.5),
        ({"chosen": [user("q"), assistant("yes")], "rejected": [user("q"), assistant("no")], "chosen_score": 2,
          "rejected_score": 1.5}, "ChosenRejected", 0.5),
        ({"prompt": "q", "responses": ["meh", "no", "yes"], "rewards": [0.5, -1.0, 2.0]}, "ResponsesWithScores", 3.0),
        ({"prompt": "q", "completions": ["yes", "no"], "scores": [3, 1]}, "ResponsesWithScores", 2.0),
        ({"prompt": "q", "chosen": "yes", "rejected": "no", "chosen-rating": 3, "rejected-rating": 2}, "PromptChosenRejected", 1),
        ({"prompt": "q", "chosen": "yes", "rejected": "no", "margin": -2.0}, "PromptChosenRejected", -2.0),
    ],
)  # fmt: skip
def test_preferences_of_the_usual_layouts_are_the_same_pair(row: dict[str, Any], layout: str, margin: float | None) -> None:
    item, tally = pair(row)
    assert [dict(message) for message in item.prompt] == [user("q")]
    assert (item.chosen, item.rejected) == (assistant("yes"), assistant("no"))
    assert (tally.layout, item.margin) == (layout, margin)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"chosen": "yes", "rejected": "no"}, "no column has the prompt"),
        ({"prompt": "q", "response": "a", "helpfulness": 4, "correctness": 4}, "helpfulness, correctness rate one answer"),
        ({"prompt": "q", "responses": ["a", "b"], "rewards": [1, 2], "chosen": "a", "rejected": "b"}, "fits two layouts"),
        ({"prompt": "q", "question": "r", "chosen": "a", "rejected": "b"}, "may each hold the prompt"),
        ({"chosen": None, "rejected": [user("q"), assistant("x")]}, "there is null"),
        ({"chosen": [user("q"), assistant("a")], "rejected": [user("r"), assistant("b")]}, "answer different prompts"),
        ({"prompt": "q", "responses": ["a", "b"], "rewards": [1.0]}, "not two lists of one length"),
        ({"prompt": [user("q")], "chosen": [user("q"), assistant("a")], "rejected": [assistant("b")]}, "begins with the assistant"),
        ({"prompt": "q", "chosen": "", "rejected": "b"}, "column chosen is empty"),
    ],
)  # fmt: skip
def test_a_preference_that_cannot_be_used_is_refused_in_words(row: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationProblem) as raised:
        pair(row)
    assert words in str(raised.value)


@pytest.mark.parametrize("column", ["chosen_score", "rejected_score"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "4.5", True, [1.0]])
def test_a_score_that_is_no_finite_number_is_named_with_its_row_and_column(column: str, value: object) -> None:
    """A margin that is NaN is neither below nor above: the pair would be trained on, whatever it is."""
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "chosen_score": 3.0, "rejected_score": 1.0, column: value}
    with pytest.raises(ConfigurationProblem, match=rf"row 1: column {column} holds .*no finite number"):
        pair(row)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [user("q")]},
        {"messages": "q"},
        {"prompt": "q"},
        {"prompt": [user("q")], "id": 1},
        {"context_messages": [user("q")], "context": "<|im_start|>user q"},
        {"conversations": [{"from": "human", "value": "q"}]},
        {"prompt": "\n\nHuman: q\n\nAssistant:"},
        {"prompt": json.dumps([user("q")])},
    ],
)
def test_questions_of_the_usual_layouts_are_the_same_prompt(row: dict[str, Any]) -> None:
    items, _ = questions_of(PromptSource(uri=URI), [row], "prompts.source").read([row])
    assert [[dict(message) for message in item.messages] for item in items] == [[user("q")]]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"a": 1}, "has no column 'messages' (it has a). Set prompts.source.column"),
        ({"prompt": "q", "question": "r"}, "may each be the prompt. Set prompts.source.column"),
        ({"messages": [user("q"), assistant("a")]}, "ends with a turn of the assistant, and not of the user"),
        ({"messages": " "}, "the text is empty"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_in_words(row: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationProblem) as raised:
        questions_of(PromptSource(uri=URI), [row], "prompts.source").read([row])[1].require_usable()
    assert words in str(raised.value)


def test_few_bad_rows_are_counted_with_the_first_of_each_kind_and_many_are_refused() -> None:
    good = {"messages": [user("a"), assistant("b")]}
    rows: list[dict[str, Any] | Unparsable] = [good] * 200
    rows[4], rows[9] = {"messages": None}, {"messages": [user("a")]}
    items, tally = demonstrations_of(source(), rows, "sft.data").read(rows)
    tally.require_usable()
    assert (len(items), tally.unusable) == (198, 2)
    assert "row 5: column messages: there is null" in tally.told()
    assert "row 10: the assistant says nothing" in tally.told()
    rows[11] = {"messages": None}
    with pytest.raises(ConfigurationProblem, match=r"3 of 200 rows cannot be used .*maxUnusableRows \(now 0\.01\)"):
        demonstrations_of(source(), rows, "sft.data").read(rows)[1].require_usable()
    demonstrations_of(source(max_unusable_rows=0.02), rows, "sft.data").read(rows)[1].require_usable()
    rows[50] = Unparsable("line 51 of d.jsonl is no JSON")
    with pytest.raises(ConfigurationProblem, match=r"row 51: line 51 .*maxUnparsableRows \(now 0\)"):
        demonstrations_of(source(max_unusable_rows=1.0), rows, "sft.data").read(rows)[1].require_usable()
    demonstrations_of(source(max_unusable_rows=0.02, max_unparsable_rows=1), rows, "sft.data").read(rows)[1].require_usable()


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=6)
NAMES = st.sampled_from(
    [
        *("role", "from", "content", "value", "tool_calls", "thinking", "weight", "name", "tools", "system", "history"),
        *("messages", "conversations", "prompt", "chosen", "rejected", "response", "responses", "rewards", "scores"),
        *("question", "instruction", "input", "output", "chosen_score"),
    ]
)
ROLES = st.sampled_from(["user", "assistant", "system", "human", "gpt", "tool", "nobody", "", None, 3])
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": SCALARS}) | st.dictionaries(NAMES, SCALARS), max_size=4)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6)
ROWS = st.lists(st.dictionaries(NAMES, MESSAGES | VALUES | MESSAGES.map(json.dumps), max_size=5), min_size=1, max_size=4)


@given(ROWS)
def test_no_row_is_lost_unseen_and_none_is_a_traceback(rows: Sequence[dict[str, Any]]) -> None:
    readers: list[Any] = [
        lambda: demonstrations_of(source(), rows, "sft.data").read(rows),
        lambda: preferences_of(source(), rows, "data").read(rows),
        lambda: questions_of(PromptSource(uri=URI), rows, "prompts.source").read(rows),
    ]
    for read in readers:
        try:
            items, tally = read()
        except ConfigurationProblem:
            continue
        assert len(items) + tally.unusable == len(rows) == tally.rows
        assert sum(tally.reasons.values()) == tally.unusable


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "Add.", "input": ["2", "3"], "output": "5"}, "contentNotText"),
        ({"instruction": "", "input": "2+3", "output": "5"}, "emptyTurn"),
        ({"prompt": "2+3?", "response": "5", "system": ["Be kind."]}, "contentNotText"),
        ({"prompt": "2+3?", "response": "5", "context": ["A passage."]}, "columnNotRead"),
        ({"messages": DEEP}, "noConversation"),
        ({"messages": [user("a"), assistant("b")], "tools": DEEP}, "toolsNotReadable"),
        ({"messages": [user("a"), assistant("b", tool_calls=DEEP)]}, "toolCallsNotReadable"),
        ({"messages": [{**user("a"), "from": "gpt"}, assistant("b")]}, "saidTwice"),
        ({"messages": [user("a"), {**assistant("b"), "value": "c"}]}, "saidTwice"),
        ({"messages": [user("a"), assistant("b", reasoning_content="c", thinking="d")]}, "saidTwice"),
        ({"messages": '[{"role": "user", "content": "a", "content": "b"}, {"role": "assistant", "content": "c"}]'}, "keyTwice"),
        ({"messages": [user("a"), assistant("b")], "tools": '[{"name": "f", "name": "g"}]'}, "toolsNotReadable"),
        ({"messages": [user("a"), assistant("b", tool_calls='[{"name": "f", "name": "g"}]')]}, "toolCallsNotReadable"),
    ],
)
def test_what_belongs_to_a_conversation_and_cannot_be_read_costs_its_row(row: dict[str, Any], reason: str) -> None:
    found, tally = demonstrations_of(source(), [row], "sft.data").read([row])
    assert not found
    assert tally.reasons == {reason: 1}


def test_what_a_message_says_under_both_names_alike_is_said_once() -> None:
    messages = [{**user("a"), "from": "user", "value": ""}, {**assistant("b", reasoning_content="", thinking="c"), "value": "b"}]
    [found], _ = demonstrations_of(source(), [{"messages": messages}], "sft.data").read([{"messages": messages}])
    assert found.messages == (user("a"), assistant("b", reasoning_content="c"))


def test_tools_with_what_json_has_no_word_for_are_refused() -> None:
    with pytest.raises(Unusable, match="what JSON cannot"):
        functions_of([{"name": "f", "parameters": {"type": "object", "properties": {"x": {"default": math.nan}}}}])


def test_a_margin_is_not_asked_for_where_scores_decide() -> None:
    found, _ = pair({"prompt": "q", "responses": ["a", "b"], "rewards": [1, 2], "margin": "n/a"})
    assert (found.chosen["content"], found.margin) == ("b", 1)


HALF = "\ud83d"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{**user("a"), HALF: 1}, assistant("b")]},
        {"messages": json.dumps([user("a"), assistant(f"b {HALF}")])},
        {"messages": [user("a"), assistant("b")], "tools": json.dumps([{"name": HALF}])},
        {"messages": [user("a"), assistant("b", tool_calls=[{"name": "f", "arguments": json.dumps({"x": HALF})}])]},
    ],
)
def test_half_a_character_is_found_wherever_it_stands(row: dict[str, Any]) -> None:
    found, tally = demonstrations_of(source(), [row], "sft.data").read([row])
    assert not found
    assert tally.reasons == {"notUnicode": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b", "margin": 10**400}, "scoreNotFinite"),
        ({"prompt": "q", "responses": "ab", "rewards": [1, 2]}, "scoresDoNotFit"),
    ],
)
def test_scores_that_are_none_cost_their_row(row: dict[str, Any], reason: str) -> None:
    found, tally = preferences_of(source(), [row], "reward.bradleyTerry.train.data").read([row])
    assert not found
    assert tally.reasons == {reason: 1}


@pytest.mark.parametrize(
    "parameters", [{"type": "string"}, {"type": "array", "items": {}}, {"type": "object", "limit": {"type": "int"}}]
)
def test_parameters_that_are_no_schema_of_an_object_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(Unusable, match="no JSON schema of an object"):
        functions_of([{"name": "f", "parameters": parameters}])
    assert functions_of([{"name": "f", "parameters": {"type": "object", "additionalProperties": {}}}])
