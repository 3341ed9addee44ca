"""What a judge is asked, and how its verdict is read: no response writes either."""

from __future__ import annotations

import re

import pytest

from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.judge.question import INSTRUCTIONS, question, template_of, verdict
from support.conversations import assistant, user

TURNS = [user("What is it?"), assistant("A bird."), user("Which one?")]


def asked(first: str, second: str, prompt: str | None = None) -> str:
    return question(template_of(prompt), Response(TURNS, first), Response(TURNS, second))


def test_it_holds_the_conversation_and_both_responses_in_their_places() -> None:
    text = asked("A tit.", "A wren.")
    assert text.startswith(INSTRUCTIONS)
    (mark,) = set(re.findall(r"#[0-9a-f]{12}", text))
    material = text.split(f"{mark} CONVERSATION\n")[1]
    assert material.startswith(
        "user: What is it?\n\nassistant: A bird.\n\nuser: Which one?\n"
        f"{mark} RESPONSE A\nA tit.\n{mark} RESPONSE B\nA wren.\n{mark} END"
    )


def test_instructions_of_ones_own_stand_in_the_place_of_the_built_in_ones() -> None:
    text = asked("a", "b", "Whichever is shorter.")
    assert text.startswith("Whichever is shorter.")
    assert INSTRUCTIONS not in text
    assert "[[C]] if neither is" in text


def test_a_template_of_ones_own_is_all_that_is_asked() -> None:
    assert asked("a", "b", "{prompt}|{responseA}|{responseB}").endswith("user: Which one?|a|b")


def test_a_response_that_looks_like_a_placeholder_is_text() -> None:
    assert asked("{responseB}", "{responseA}", "{prompt}|{responseA}|{responseB}").endswith("|{responseB}|{responseA}")


def test_tools_and_calls_are_shown() -> None:
    called = {**assistant(""), "tool_calls": [{"function": {"name": "look"}}]}
    first = Response([user("Look."), called], "a", tools=[{"type": "function", "function": {"name": "look"}}])
    text = question(template_of(None), first, Response(first.messages, "b", tools=first.tools))
    assert text.count('"name": "look"') == 2


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("[[A]]", 1.0),
        ("B is better.\n\n[[B]]", 0.0),
        ("[[C]] ", 0.5),
        ("One might say [[A]], but no: [[B]].", 0.0),
        ("", None),
        ("A", None),
        ("[A]", None),
        ("[[a]]", None),
        ("[[A]", None),
        ("[[D]]", None),
        ("[[ A ]]", None),
        ("[[AB]]", None),
    ],
)
def test_the_last_verdict_of_an_answer_counts_and_nothing_that_is_nearly_one(answer: str, share: float | None) -> None:
    assert verdict(answer) == share
