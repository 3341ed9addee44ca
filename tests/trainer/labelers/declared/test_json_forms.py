"""JSON that a schema accepts: which schemas are taken, what they accept, and that every check ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.resource.labeler import JsonSchema, Rule
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.declared.json_forms import last_code_block
from rlhf_trainer.labelers.declared.labeler import DeclaredLabeler
from rlhf_trainer.runtime.errors import ConfigurationProblem

LONG = 1_000_000
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}
NODE = {"$ref": "#/$defs/node"}


def labeler(schema: Any, *, code_block: bool = False) -> DeclaredLabeler:
    inline = schema if isinstance(schema, str) else json.dumps(schema)
    return DeclaredLabeler.load(Rule(json_schema=JsonSchema(inline=inline, code_block=code_block)), "reward.rule")


def accepts(schema: Any, text: str, *, code_block: bool = False) -> bool:
    (score,) = labeler(schema, code_block=code_block).score([Response([], text)])
    return bool(score)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"name": "Ada", "age": 36}', True),
        (' {"name": "Ada"}\n', True),
        ('{"name": "ada"}', False),
        ('{"name": "Ada", "age": -1}', False),
        ('{"name": "Ada", "born": 1815}', False),
        ("{}", False),
        ("", False),
        ("Ada", False),
        ('{"name": "Ada"', False),
        ('{"name": "Ada"} {}', False),
        ('{"name": "Ada", "name": "Bob"}', False),
        ('{"name": "A\\ud800"}', True),
        ('{"name": "A\0"}', False),
        ("\ud800", False),
    ],
)
def test_a_response_scores_by_whether_the_schema_accepts_it(text: str, right: bool) -> None:
    assert accepts(PERSON, text) is right


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "1" * 5000, "\ufeff1"])
def test_what_is_no_json_number_everywhere_is_not_accepted(text: str) -> None:
    assert accepts({}, "1")
    assert not accepts({}, text)


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("Here:\n```json\n{}\n```\nDone.", "{}"),
        ("```\n1\n```\n```\n2\n3\n```", "2\n3"),
        ("~~~\n```\n~~~", "```"),
        ("````\n```\n````", "```"),
        ("```\n1", "1"),
        ("```\n```", ""),
        ("`1`", None),
        ("```a`b", None),
        ("", None),
    ],
)
def test_the_last_code_block_is_what_its_fences_hold(text: str, block: str | None) -> None:
    assert last_code_block(text) == block


def test_a_code_block_is_read_where_the_manifest_says_so() -> None:
    fenced = '```json\n{"name": "Ada"}\n```'
    assert accepts(PERSON, f"So:\n{fenced}", code_block=True)
    assert not accepts(PERSON, fenced)
    assert accepts(PERSON, '{"name": "Ada"}', code_block=True)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{{", "is no JSON: .* Write the text of a JSON Schema."),
        ('{"type": "object", "type": "array"}', "key 'type' twice"),
        ({"type": "objekt"}, r"is no JSON Schema: at \$.type, 'objekt'"),
        ({"properties": {"a": {"minimum": "1"}}}, r"at \$.properties.a.minimum"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "written for 'http://json-schema.org/draft-07/schema#'"),
        ({"pattern": "("}, r"inline, pattern '\(' is no pattern"),
        ({"$defs": {"a": {"pattern": "(?=b)"}}}, "no look-around"),
        ({"patternProperties": {"a": {}}}, "has patternProperties"),
        ({"unevaluatedItems": False}, "has unevaluatedItems, .* write items"),
        ({"unevaluatedProperties": False}, "write additionalProperties"),
        ({"$ref": "https://example.com/schema"}, "refers to 'https://example.com/schema', and nothing outside it is read"),
        ({"$ref": "other.json"}, "refers to 'other.json'"),
        ({"$ref": "#/$defs/gone"}, "refers to '#/\\$defs/gone', and has no such part"),
        ({"const": 3, "$ref": "#/const"}, "which is no schema"),
        ({"$defs": {"a": {"$id": "https://example.com/a"}}}, "a part with an \\$id of its own"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"items": {"$ref": "#/items"}}, "refers to itself without end"),
        ("[" * 30_000, "nested too deep"),
    ],
)
def test_what_is_no_schema_or_cannot_be_checked_in_bounded_time_is_refused_where_it_stands(schema: Any, said: str) -> None:
    with pytest.raises(ConfigurationProblem, match=said) as refused:
        labeler(schema).score([Response([], "[1]")])
    assert str(refused.value).startswith("reward.rule.jsonSchema.inline")


def test_nothing_that_a_schema_names_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default registry of jsonschema opens what a reference names."""

    def opened(*arguments: object, **_: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr("urllib.request.urlopen", opened)
    monkeypatch.setattr("socket.socket.connect", opened)
    for keyword in ("$ref", "$dynamicRef"):
        with pytest.raises(ConfigurationProblem, match="nothing outside it is read"):
            labeler({keyword: "http://127.0.0.1:9/a"})
    assert accepts({"$id": "http://127.0.0.1:9/a"}, "{}")
    assert accepts({"$id": "http://127.0.0.1:9/a", "$ref": "#/$defs/b", "$defs": {"b": {"type": "object"}}}, "{}")


def test_no_response_makes_a_check_last() -> None:
    distinct = json.dumps([{"a": i} for i in range(80_000)])
    twice = {"anyOf": [{"properties": {"a": NODE}, "required": [name]} for name in ("x", "y")]}
    nested = '{"a":' * 31 + "{}" + "}" * 31
    assert accepts({"uniqueItems": True}, distinct)
    assert not accepts({"uniqueItems": True}, f"{distinct[:-1]}, {distinct[1:]}")
    assert not accepts({"pattern": "(a+)+b"}, json.dumps("a" * LONG))
    assert not accepts({"$defs": {"node": twice}, **NODE}, nested)
    assert not accepts({}, "[" * LONG)
    assert not accepts({}, '"' + '\\"' * (LONG // 2))
    assert not accepts({"multipleOf": 0.5}, "1" + "0" * 4000)


def test_nesting_is_bounded_whatever_stack_is_left() -> None:
    tree = {"$defs": {"node": {"type": "object", "properties": {"a": NODE}}}, **NODE}
    assert accepts(tree, '{"a":' * 31 + "{}" + "}" * 31)
    assert not accepts(tree, '{"a":' * 32 + "{}" + "}" * 32)
    assert accepts(tree, json.dumps({"b": "[" * 100 + '"\\'}))


@pytest.mark.parametrize(
    ("items", "unique"),
    [
        ('[1, true, "1", [1], {"a": 1}, null, false, 0]', True),
        ("[1, 1.0]", False),
        ('[{"a": 1, "b": 2}, {"b": 2, "a": 1.0}]', False),
        ("[[1, [true]], [1, [1]]]", True),
        ("[]", True),
    ],
)
def test_items_are_equal_as_json_schema_has_it(items: str, unique: bool) -> None:
    assert accepts({"uniqueItems": True}, items) is unique
    assert accepts({"uniqueItems": False}, items)


@given(st.text(st.characters(codec=None) | st.sampled_from(list('{}[]",:\\0123456789eE.`\n')), max_size=60))
def test_every_text_is_accepted_or_not(text: str) -> None:
    for block in (False, True):
        assert labeler(PERSON, code_block=block).score([Response([], text)]) in ([0.0], [1.0])
