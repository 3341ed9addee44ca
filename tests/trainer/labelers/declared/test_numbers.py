"""Numbers as people write them: the table, and what holds for every number and every text."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_trainer.labelers.declared.numbers import last_number, number_of

LONG = 1_000_000
#: None of what may stand around a number in a sentence.
words = st.text(st.sampled_from("abc xyz.!?\n答案是:*"), max_size=12)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        (" -42\n", -42),
        ("\u22123", -3),
        ("+7", 7),
        ("007", 7),
        ("1,234", 1234),
        ("1,234,567.5", Fraction("1234567.5")),
        ("1{,}234", 1234),
        (r"10\,000", 10000),
        (".5", Fraction(1, 2)),
        ("0.10", Fraction(1, 10)),
        ("1e3", 1000),
        ("2.5E-1", Fraction(1, 4)),
        ("50%", Fraction(1, 2)),
        (r"12.5 \%", Fraction(1, 8)),
        ("$3.50", Fraction(7, 2)),
        ("-$3", -3),
        (r"\$3", 3),
        ("$42$", 42),
        ("3/4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{1}{2}", Fraction(-1, 2)),
        (r"$\tfrac{-1}{2}$", Fraction(-1, 2)),
    ],
)
def test_what_is_a_number(text: str, number: Fraction | int) -> None:
    assert number_of(text) == number
    assert last_number(f"7 and then {text}") == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "42 km",
        "1.",
        "1,23",
        "12,34,567",
        "1 1/2",
        "1/0",
        "1/2/3",
        "1.234,56",
        "1 234",
        "--1",
        "$",
        "1e",
        "nan",
        "inf",
    ],
)
def test_what_is_none_or_could_be_several(text: str) -> None:
    assert number_of(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("17 + 25 = 42.", 42),
        ("so 5-3", 3),
        ("x=-5", -5),
        ("on 2026-11-30", 30),
        ("on 1/2/2024", 2024),
        ("答案是42。", 42),
        ("the answer is...42", 42),
        (r"\boxed{\frac{7}{8}}", Fraction(7, 8)),
        ("**1,234**", 1234),
        ("(3, 4)", 4),
        ("6/3=2", 2),
        ("12km, see figure A7", 12),
        ("version 1.2.3 of x1", Fraction("1.2")),
        ("nothing", None),
        ("3, then 1/0", None),
    ],
)
def test_the_last_number_of_a_response(text: str, number: Fraction | int | None) -> None:
    assert last_number(text) == number


@given(st.integers(-(10**30), 10**30), st.integers(0, 12), st.booleans(), words)
def test_however_a_number_is_written_it_is_itself(digits: int, decimals: int, thousands: bool, around: str) -> None:
    value = Fraction(digits, 10**decimals)
    whole, rest = divmod(abs(digits), 10**decimals)
    text = ("-" if digits < 0 else "") + (f"{whole:,}" if thousands else str(whole)) + (f".{rest:0{decimals}}" if decimals else "")
    assert number_of(text) == value
    assert number_of(f"{text}%") == value / 100
    assert last_number(f"{around} {text}{around.replace('.', '')}") == value


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**9))
def test_a_fraction_is_a_number_in_both_ways_to_write_one(over: int, under: int) -> None:
    assert number_of(f"{over}/{under}") == number_of(rf"\frac{{{over}}}{{{under}}}") == Fraction(over, under)


@given(st.text(st.characters(codec=None) | st.sampled_from(list("0123456789.,/-+%$eE\\{}frac")), max_size=60))
def test_every_text_has_a_last_number_or_none(text: str) -> None:
    number = number_of(text)
    assert number is None or last_number(text.strip().strip("$")) == number
    last_number(text)


@pytest.mark.parametrize("part", ["1", "1,", "1,111,", "1.", "1/", "-", "$", "1e", "1{,}", "\\frac{1}{", "\0", "\ud800", ".", "%"])
def test_a_long_text_is_read_in_one_go(part: str) -> None:
    last_number(part * (LONG // len(part)))
    number_of(part * (LONG // len(part)))
