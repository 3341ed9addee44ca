"""What a field of the API is: `rlhfctl explain spec.train.loss`, and the reference in the docs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rlhf_api.reading.schema import Node, run_schema, walk
from rlhf_api.validation.phrases import PATTERNS
from rlhf_api.validation.suggest import nearest

from .metrics import Metric


@dataclass(frozen=True)
class FieldDoc:
    """One field. `children` are its own fields; of a list or a map, those of its entries."""

    path: str
    """Without indexes: spec.gates.metric."""
    name: str
    type: str
    """In words: `whole number`, `list of objects`, `map of text`."""
    description: str
    required: bool
    """Inside its object: a required field of an optional object is asked for only when the object is there."""
    default: Any = None
    """As a manifest writes it; None: absent."""
    values: tuple[str, ...] = ()
    """Of an enum."""
    value_docs: tuple[tuple[str, str], ...] = ()
    """(value, what it means, with its unit), for metrics."""
    constraints: tuple[str, ...] = ()
    """Bounds and form, each in a few words."""
    children: tuple[FieldDoc, ...] = ()
    """One level; describe() a child for its own."""


class UnknownFieldError(LookupError):
    """There is no such field. `suggestions` are paths that exist, the likeliest first."""

    def __init__(self, path: str, parent: str, known: tuple[str, ...], suggestions: tuple[str, ...]) -> None:
        where = parent or "RLHFRun"
        message = f"{where} has no field {path.rsplit('.', 1)[-1]!r}"
        if suggestions:
            message += f"; did you mean {' or '.join(suggestions)}?"
        elif known:
            message += f"; it has {', '.join(known)}"
        else:
            message += ": it is a plain value"
        super().__init__(message)
        self.path = path
        self.parent = parent
        self.known = known
        self.suggestions = suggestions


def describe(path: str = "") -> FieldDoc:
    """The field at a path: `spec.gates.metric`, `gates[0].metric`, `rlhfrun.spec`; "" is the whole object.

    Paths may leave out `spec.` in front. Raises UnknownFieldError.
    """
    names = _names(path)
    node, required = run_schema(), True
    walked: tuple[str, ...] = ()
    for name in names:
        inner = _element(node)
        fields = inner.get("properties", {})
        if name not in fields:
            raise _unknown(walked, name, tuple(fields))
        required, node, walked = name in inner.get("required", ()), fields[name], (*walked, name)
    return _doc(walked, node, required, with_children=True)


def all_fields() -> tuple[FieldDoc, ...]:
    """Every field of spec and status, in order, without children."""
    root = run_schema()
    return tuple(_doc(path, node, _is_required(root, path), with_children=False) for path, node in walk(root))


def _names(path: str) -> tuple[str, ...]:
    names = tuple(name for name in re.sub(r"\[[^\]]*\]", "", path).strip().strip(".").split(".") if name)
    if names and names[0].lower() == "rlhfrun":
        names = names[1:]
    root = run_schema()["properties"]
    if names and names[0] not in root and names[0] in root["spec"]["properties"]:
        names = ("spec", *names)
    return names


def _element(node: Node) -> Node:
    """The object itself, or what a list or map holds."""
    while "properties" not in node:
        inner = node.get("items") or node.get("additionalProperties")
        if not isinstance(inner, dict):
            return node
        node = inner
    return node


def _doc(path: tuple[str, ...], node: Node, required: bool, *, with_children: bool) -> FieldDoc:
    element = _element(node)
    children: tuple[FieldDoc, ...] = ()
    if with_children:
        needed = element.get("required", ())
        fields = element.get("properties", {})
        children = tuple(_doc((*path, name), field, name in needed, with_children=False) for name, field in fields.items())
    values = tuple(element.get("enum", ()))
    metrics = values == tuple(Metric)
    return FieldDoc(
        path=".".join(path),
        name=path[-1] if path else "RLHFRun",
        type=_type(node),
        description=node.get("description", ""),
        required=required,
        default=node.get("default"),
        values=values,
        value_docs=tuple((metric.value, f"{metric.definition} ({metric.unit})") for metric in Metric) if metrics else (),
        constraints=_constraints(node),
        children=children,
    )


_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text", "object": "object"}


def _type(node: Node) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if node.get("format") == "date-time":
        return "time"
    if node["type"] == "array":
        return f"list of {_plural(_type(node['items']))}"
    if node["type"] == "object" and "properties" not in node and "additionalProperties" in node:
        return f"map of {_plural(_type(node['additionalProperties']))}"
    return "one of its values" if "enum" in node else _TYPES[node["type"]]


def _plural(name: str) -> str:
    return {"one of its values": "its values", "quantity": "quantities", "text": "text"}.get(name, f"{name}s")


def _constraints(node: Node) -> tuple[str, ...]:
    """Bounds in words; the largest 32-bit integer and 1e12 are bounds of the format, not of the matter."""
    found = []
    if "minimum" in node:
        found.append(f"{'above' if node.get('exclusiveMinimum') else 'at least'} {node['minimum']:g}")
    if "maximum" in node and node["maximum"] not in (2**31 - 1, 1e12):
        found.append(f"{'below' if node.get('exclusiveMaximum') else 'at most'} {node['maximum']:g}")
    for least, most, one, many in (
        ("minItems", "maxItems", "entry", "entries"),
        ("minProperties", "maxProperties", "key", "keys"),
        ("minLength", "maxLength", "character", "characters"),
    ):
        if least in node:
            found.append(f"at least {node[least]} {one if node[least] == 1 else many}")
        if most in node:
            found.append(f"at most {node[most]} {one if node[most] == 1 else many}")
    if "pattern" in node:
        found.append(PATTERNS[node["pattern"]])
    if "x-kubernetes-list-map-keys" in node:
        found.append(f"each {' and '.join(node['x-kubernetes-list-map-keys'])} once")
    return tuple(found)


def _is_required(root: Node, path: tuple[str, ...]) -> bool:
    for name in path[:-1]:
        root = _element(root)["properties"][name]
    return path[-1] in _element(root).get("required", ())


def _unknown(parent: tuple[str, ...], name: str, known: tuple[str, ...]) -> UnknownFieldError:
    match = nearest(name, known)
    suggestions: tuple[str, ...] = ()
    if match is not None:
        suggestions = (".".join((*parent, match)),)
    else:
        spec = run_schema()["properties"]["spec"]
        by_name: dict[str, list[tuple[str, ...]]] = {}
        for path, _ in walk(spec, ("spec",)):
            by_name.setdefault(path[-1], []).append(path)
        elsewhere = nearest(name, by_name)
        if elsewhere is not None:
            suggestions = tuple(".".join(path) for path in sorted(by_name[elsewhere], key=len)[:3])
    return UnknownFieldError(".".join((*parent, name)), ".".join(parent), known, suggestions)
