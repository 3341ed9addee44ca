"""JSON that a schema accepts: JSON Schema 2020-12, read from the manifest alone, checked in a time that is bounded.

Python's `jsonschema` checks; where its keywords search with `re`, fetch, or compare all with all, ours do or the schema is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import referencing
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from rlhf_trainer.data.rows import json_of
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .patterns import LinearPattern

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Objects and arrays within each other, of a response: what Python's stack holds under any schema that a person writes.
_DEEPEST = 32
#: References that one response may lead through. A schema that refers to itself twice doubles them with each level of a response.
_MOST_REFERENCES = 10_000
#: Keywords whose check takes the square of a response's length, or patterns that may not end, and what says the same.
_REFUSED = {
    "patternProperties": "write properties, or propertyNames with a pattern",
    "unevaluatedProperties": "write additionalProperties",
    "unevaluatedItems": "write items",
}
#: What a schema is tried on: one that refers to itself without end does so on one of them.
_SAMPLES: tuple[object, ...] = ({}, [], "", 0, None, True)


class NotAccepted(ValueError):  # noqa: N818 (it is no error of the program: it is what a response is)
    """It is no JSON, or JSON that readers take for different things."""


class JsonForm:
    """field: of the manifest, for messages."""

    def __init__(self, text: str, field: str) -> None:
        """Raises ConfigurationProblem for what is no schema, or one that cannot be checked in a bounded time."""
        self._field = field
        schema = self._schema(text)
        self._references = 0
        self._patterns: dict[str, LinearPattern] = {}
        for key, value in _members(schema):
            self._look_at(schema, key, value)
        own = {"pattern": self._pattern, "uniqueItems": _unique_items}
        own |= {name: self._counted(Draft202012Validator.VALIDATORS[name]) for name in ("$ref", "$dynamicRef")}
        # An empty registry, for the default one fetches what a schema names.
        self._validator = extend(Draft202012Validator, own)(schema, registry=referencing.Registry())
        for sample in _SAMPLES:
            self._accepts(sample)

    def accepts(self, text: str) -> bool:
        """Raises ConfigurationProblem where the schema refers to itself without end."""
        try:
            value = _json(text)
        except ValueError:
            return False
        return self._accepts(value)

    def _accepts(self, value: object) -> bool:
        self._references = 0
        try:
            return bool(self._validator.is_valid(value))
        except _TooMany:
            return False
        except OverflowError:
            # A whole number beyond every float, where the schema has a float.
            return False
        except RecursionError as error:
            raise ConfigurationProblem(f"{self._field} refers to itself without end. Let each $ref lead to a part.") from error

    def _schema(self, text: str) -> Any:
        try:
            schema = json_of(text)
            dialect = schema.get("$schema", _DIALECT) if isinstance(schema, dict) else _DIALECT
            if dialect not in (_DIALECT, f"{_DIALECT}#"):
                raise ConfigurationProblem(f"{self._field} is written for {dialect!r}. Write {_DIALECT}, or leave $schema out.")
            # Without formats: that of patterns would be Python's, and the others are no part of what is checked.
            Draft202012Validator.check_schema(schema, format_checker=FormatChecker(()))
        except SchemaError as error:
            raise ConfigurationProblem(f"{self._field} is no JSON Schema: at {error.json_path}, {error.message}.") from error
        except RecursionError as error:
            raise ConfigurationProblem(f"{self._field} is nested too deep to be read. Write parts of it under $defs.") from error
        except ValueError as error:
            raise ConfigurationProblem(f"{self._field} is no JSON: {error}. Write the text of a JSON Schema.") from error
        return schema

    def _look_at(self, schema: Any, key: str, value: object) -> None:
        if key in _REFUSED:
            raise ConfigurationProblem(
                f"{self._field} has {key}, whose check may take longer than a run lasts; {_REFUSED[key]}. No property may "
                "have that name."
            )
        if key == "pattern" and isinstance(value, str):
            self._patterns[value] = LinearPattern(value, f"{self._field}, pattern")
        if key == "$id" and isinstance(value, str) and (not isinstance(schema, dict) or schema.get("$id") != value):
            raise ConfigurationProblem(f"{self._field} has a part with an $id of its own, {value!r}. Name the part under $defs.")
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            self._require_reference(schema, value)

    def _require_reference(self, schema: Any, ref: str) -> None:
        if not ref.startswith("#"):
            raise ConfigurationProblem(
                f"{self._field} refers to {ref!r}, and nothing outside it is read. Write that under $defs, and #/$defs/… here."
            )
        try:
            found = referencing.Registry().resolver_with_root(DRAFT202012.create_resource(schema)).lookup(ref).contents
        except (Unresolvable, ValueError, TypeError, LookupError) as error:
            raise ConfigurationProblem(f"{self._field} refers to {ref!r}, and has no such part.") from error
        if not isinstance(found, dict | bool):
            raise ConfigurationProblem(f"{self._field} refers to {ref!r}, which is no schema.")

    def _counted(self, keyword: Any) -> Any:
        def counted(validator: Any, ref: str, instance: object, schema: Any) -> Iterator[ValidationError]:
            self._references += 1
            if self._references > _MOST_REFERENCES:
                raise _TooMany
            yield from keyword(validator, ref, instance, schema)

        return counted

    def _pattern(self, _: Any, pattern: str, instance: object, __: Any) -> Iterator[ValidationError]:
        if isinstance(instance, str) and not self._patterns[pattern].found_in([instance])[0]:
            yield ValidationError("does not match")


class _TooMany(Exception):  # noqa: N818 (it is no error of the program: it is what a response leads to)
    """References."""


def last_code_block(text: str) -> str | None:
    """What stands between the last pair of fences, as Markdown has them; one that is not closed goes on to the end."""
    lines: list[str] = []
    opened = False
    fence = ""
    for line in text.split("\n"):
        stripped = line.strip()
        mark = stripped[:1] * (len(stripped) - len(stripped.lstrip(stripped[:1]))) if stripped[:1] in ("`", "~") else ""
        if fence:
            if mark == stripped and mark.startswith(fence):
                fence = ""
            else:
                lines.append(line)
        elif len(mark) >= 3 and "`" not in stripped[len(mark) :]:
            fence, opened, lines = mark, True, []
    return "\n".join(lines) if opened else None


def _json(text: str) -> Any:
    """Raises ValueError for what is no JSON, and for what readers take for different things: NaN, a key twice, 1e999."""
    if text.count("[") + text.count("{") > _DEEPEST and _depth(text) > _DEEPEST:
        raise NotAccepted("nested too deep")
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)


def _depth(text: str) -> int:
    """Of brackets outside strings. By hand: json's own answer is how much of Python's stack is left."""
    deepest = depth = 0
    quoted = escaped = False
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotAccepted("a key twice")
    return found


def _no_constant(name: str) -> float:
    raise NotAccepted(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotAccepted(text)
    return value


def _unique_items(_: Any, wanted: bool, instance: object, __: Any) -> Iterator[ValidationError]:
    """In the time of one look at each: jsonschema compares all with all where they have no order."""
    if wanted and isinstance(instance, list) and len({_key(item) for item in instance}) < len(instance):
        yield ValidationError("has non-unique elements")


def _key(value: Any) -> object:
    """Equal for values that JSON Schema takes as equal: 1 and 1.0, and not 1 and true."""
    if isinstance(value, dict):
        return "object", frozenset((name, _key(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_key, value))
    return ("number", value) if isinstance(value, int | float) and not isinstance(value, bool) else (type(value).__name__, value)


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every object in it: a reference may lead anywhere, so that anything may be a schema."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Mapping):
            yield from found.items()
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found
