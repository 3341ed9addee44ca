"""The fields of the API as a person looks them up by name: `train.loss.beta`. For `explain`; the schema is rlhf_api's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rlhf_api.schema import Node, is_open, run_schema, walk

from .errors import NotFound
from .suggest import did_you_mean, hint_for


@dataclass(frozen=True)
class Field:
    """One field: `path` as a person writes it, `type_name` and `limits` in words."""

    path: str
    name: str
    node: Node
    required: bool

    @property
    def type_name(self) -> str:
        return type_name(self.node)

    @property
    def description(self) -> str:
        return str(self.node.get("description", ""))

    @property
    def default(self) -> str | None:
        """None where absent means nothing in particular, or what the fields below say themselves."""
        value = self.node.get("default")
        if value is None or value in ({}, []):
            return None
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    @property
    def values(self) -> tuple[str, ...]:
        """Of an enum, or of a list of them."""
        return tuple(str(value) for value in element(self.node).get("enum", ()))

    @property
    def limits(self) -> tuple[str, ...]:
        return tuple(_limits(self.node))

    def children(self) -> list[Field]:
        inner = element(self.node)
        required = inner.get("required", ())
        prefix = f"{self.path}." if self.path else ""
        return [Field(prefix + name, name, node, name in required) for name, node in inner.get("properties", {}).items()]


def find(path: str) -> Field:
    """The field at `path`; a path that starts with no field of RLHFRun means the spec.

    Raises:
        NotFound: with the nearest name there is.
    """
    here = Field("", "RLHFRun", run_schema(), required=True)
    parts = [part.split("[")[0] for part in path.split(".") if part]
    if parts and parts[0].lower() == "rlhfrun":
        parts = parts[1:]
    if parts and parts[0] not in {field.name for field in here.children()}:
        parts = ["spec", *parts]
    for part in parts:
        choices = {field.name: field for field in here.children()}
        if part not in choices:
            raise _not_found(here, part, list(choices))
        here = choices[part]
    return here


def element(node: Node) -> Node:
    """What a list or a map holds; any other node itself."""
    inner = node.get("items") or node.get("additionalProperties")
    return element(inner) if isinstance(inner, dict) and "properties" not in node else node


def type_name(node: Node) -> str:
    if "enum" in node:
        return "enum"
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if is_open(node):
        return "any object"
    if node.get("type") == "array":
        return f"list of {type_name(node['items'])}"
    if isinstance(node.get("additionalProperties"), dict) and "properties" not in node:
        return f"map of string to {type_name(node['additionalProperties'])}"
    return str(node.get("type", "any"))


def _not_found(here: Field, part: str, choices: list[str]) -> NotFound:
    why = f"its fields are {', '.join(choices)}" if choices else f"it is a plain {here.type_name}"
    hints = hint_for(part, choices) or _elsewhere(part) or (f"rlhfctl explain {here.path}".rstrip(),)
    return NotFound(f"{here.path or 'RLHFRun'} has no field {part!r}", why=why, hints=hints)


def _elsewhere(name: str) -> tuple[str, ...]:
    """Where else in the spec a field of this name, or of one like it, lies."""
    paths = [path for path, _ in walk(run_schema()["properties"]["spec"])]
    near = did_you_mean(name, {path[-1] for path in paths})
    return tuple(f"rlhfctl explain {'.'.join(path)}" for path in paths if path[-1] == near)[:3]


_BOUNDS = (("minimum", "≥"), ("maximum", "≤"), ("minLength", "length ≥"), ("maxLength", "length ≤"))
_COUNTS = (("minItems", "items ≥"), ("maxItems", "items ≤"), ("minProperties", "entries ≥"), ("maxProperties", "entries ≤"))
#: Bounds that only keep the schema's cost finite say nothing to a reader.
_SILENT = (2**31 - 1, 1e12)


def _limits(node: Node) -> Iterator[str]:
    for key, word in (*_BOUNDS, *_COUNTS):
        value: Any = node.get(key)
        if value is None or value in _SILENT:
            continue
        strict = node.get({"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}.get(key, ""), False)
        sign = {"≥": ">", "≤": "<"}[word] if strict else word
        yield f"{sign} {value:g}" if isinstance(value, float) else f"{sign} {value}"
    if "pattern" in node:
        yield f"matches {node['pattern']}"
