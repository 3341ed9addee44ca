"""Manifests are read as kubectl reads them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.reading.manifest import MAX_CHARACTERS, ManifestError, read_manifest, read_manifests


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-7", 5e-7),
        ("5.0e-7", 5e-7),
        ("2.0", 2),
        ("1e3", 1000),
        (".5", 0.5),
        ("1_000", 1000),
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b101", 5),
        ("-0x10", -16),
        ("08", 8),
        ("+3", 3),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("2001-01-01T12:00:00Z", "2001-01-01T12:00:00Z"),
        ("yes", True),
        ("Off", False),
        ("y", True),
        ('"yes"', "yes"),
        ("~", None),
        ("", None),
        ("null", None),
        ('"5"', "5"),
        ("!!str 5", "5"),
        ("!!float 5", 5),
        ("64Gi", "64Gi"),
        ("1.5.2", "1.5.2"),
        ("-", "-"),
        ("e5", "e5"),
        ("=", "="),
    ],
)
def test_scalars_have_the_values_that_kubectl_gives_them(text: str, value: object) -> None:
    read = read_manifest(f"a: [{text}]" if text not in ("", "-") else f"a:\n- {text!r}" if text == "-" else "a:\n-")
    assert read.raw == {"a": [value]}
    assert type(read.raw["a"][0]) is type(value)


def test_keys_are_text() -> None:
    assert read_manifest("1: a\ntrue: b\n1.5: c").raw == {"1": "a", "true": "b", "1.5": "c"}


def test_anchors_and_merges_are_written_out_and_own_keys_win() -> None:
    text = "a: &a {p: 1, q: 2}\nb: *a\nc: {<<: *a, q: 3}\nd: {q: 4, <<: [{q: 5, r: 6}, *a]}"
    assert read_manifest(text).raw == {
        "a": {"p": 1, "q": 2},
        "b": {"p": 1, "q": 2},
        "c": {"p": 1, "q": 3},
        "d": {"p": 1, "q": 4, "r": 6},
    }


def test_json_is_read_too() -> None:
    assert read_manifest('{"a": {"b": [1, 2.5, true, null, "x"]}}').raw == {"a": {"b": [1, 2.5, True, None, "x"]}}


def test_every_value_has_its_line() -> None:
    read = read_manifest("a:\n  b: 1\n  c:\n  - x\n  - y: 2\n")
    assert [read.line(loc) for loc in [("a",), ("a", "b"), ("a", "c", 0), ("a", "c", 1, "y")]] == [1, 2, 4, 5]


def test_what_is_absent_has_the_line_of_what_is_around_it() -> None:
    assert read_manifest("a: 1\nb:\n  c: 1\n").line(("b", "missing", 3)) == 2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3", 3, "key 'a' stands twice"),
        ('a: {1: x, "1": y}', 1, "key '1' stands twice"),
        ("a: [1\nb: 2", 2, "not YAML"),
        ("a: 1\n\tb: 2", 2, "not YAML"),
        ("a: .nan", 1, "no number that JSON can carry"),
        ("a: 1e999", 1, "too large"),
        ("a: 99999999999999999999", 1, "too large"),
        ("a: !python/object:os.system x", 1, "tag"),
        ("a: !!binary aGk=", 1, "tag"),
        ("a: !!int x", 1, "'x' is no int"),
        ("? [a]\n: b", 1, "a key is text"),
        ("~: b", 1, "a key is empty"),
        ("a: &a [*a]", 1, "nested deeper"),
        ("<<: 3", 1, "merges an object"),
        ("- a", 1, "not an object"),
        ("just text", 1, "not an object"),
        ("", None, "empty"),
        ("# a remark\n---\n", None, "empty"),
        ("a: 1\n---\nb: 2", 3, "2 documents"),
        ("a: \x00", None, "not YAML"),
        ("x" * (MAX_CHARACTERS + 1), None, "characters"),
        ("[" * 5000, 1, "nested deeper"),
    ],
)
def test_an_unreadable_manifest_is_one_clear_error_with_its_line(text: str, line: int | None, words: str) -> None:
    with pytest.raises(ManifestError, match=words) as caught:
        read_manifest(text)
    assert caught.value.line == line


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(ManifestError, match="aliases written out"):
        read_manifest(bomb)


def test_documents_that_hold_nothing_do_not_count() -> None:
    assert [each.raw for each in read_manifests("---\n---\na: 1\n---\nb: 2\n---\n")] == [{"a": 1}, {"b": 2}]


@given(st.text(alphabet=st.sampled_from("ab:- \n[]{}&*!|>'\"#%@,?~<.01\t\x00é"), max_size=60) | st.text(max_size=60))
def test_no_text_raises_anything_but_a_manifest_error(text: str) -> None:
    with suppress(ManifestError):
        read_manifests(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 50_000, "line 1: nested deeper than 64 levels"),
        ("{a: " * 50_000, "line 1: nested deeper than 64 levels"),
        ("".join(f"{' ' * level}a:\n" for level in range(1300)), "nested deeper than 64 levels"),
        ('a: "\\U00110000"', "not YAML"),
        ('a: "\\UFFFFFFFF"', "not YAML"),
    ],
)
def test_what_a_parser_dies_of_is_told_like_any_other_mistake(text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(text)
