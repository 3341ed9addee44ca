"""The schema of an RLHFRun as one plain tree: no references, no null, draft-4 bounds. The CRD, `explain` and the validator read it.

A node is a JSON schema with what a structural schema of Kubernetes may hold. Beside that it has two keys that the CRD drops:
`propertyNames`, for the keys of maps, and `x-model`, the name of the pydantic model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from rlhf_api.resource.run import RLHFRun

Node = Mapping[str, Any]
#: Keys of pydantic's schemas that say nothing to a reader or to Kubernetes.
_DROPPED = ("title", "$defs", "discriminator")


@cache
def run_schema() -> Node:
    """The whole RLHFRun, status too."""
    document = RLHFRun.model_json_schema(by_alias=True, mode="validation")
    return _inline(document, document["$defs"])


def child(node: Node, key: str | int) -> Node | None:
    """The schema of a field, of a list's entry, or of a map's value; None where there is none."""
    if isinstance(key, int):
        items: Node | None = node.get("items")
        return items
    found: Node | None = node.get("properties", {}).get(key)
    if found is None and isinstance(node.get("additionalProperties"), dict):
        found = node["additionalProperties"]
    return found


def node_at(loc: tuple[str | int, ...]) -> Node | None:
    """The schema of a place in a manifest: ("spec", "gates", 1, "max")."""
    node: Node | None = run_schema()
    for key in loc:
        if node is None:
            return None
        node = child(node, key)
    return node


def walk(node: Node, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Every field below a node, in order of the models; entries of lists and maps stand under their list's or map's own path."""
    for name, field in node.get("properties", {}).items():
        yield (*path, name), field
        yield from walk(_element(field), (*path, name))


def _element(node: Node) -> Node:
    """What a list or a map holds; an object itself."""
    inner = node.get("items") or node.get("additionalProperties")
    return _element(inner) if isinstance(inner, dict) and "properties" not in node else node


def _inline(node: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    node = _resolved(node, definitions)
    if node.get("type") == "object" and node.get("additionalProperties") is True and "properties" not in node:
        node = {**node, "x-kubernetes-preserve-unknown-fields": True}
    if "patternProperties" in node:
        ((pattern, value),) = node.pop("patternProperties").items()
        node["additionalProperties"] = value
        node["propertyNames"] = {**node.get("propertyNames", {}), "type": "string", "pattern": pattern}
    if not isinstance(node.get("additionalProperties"), dict):
        node.pop("additionalProperties", None)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in node:
            node[limit] = node[bound]
            node[bound] = True
    for key in ("items", "additionalProperties", "propertyNames"):
        if key in node:
            node[key] = _inline(node[key], definitions)
    if "properties" in node:
        node["properties"] = {name: _inline(field, definitions) for name, field in node["properties"].items()}
    if "default" in node:
        default = _default(node, node.pop("default"))
        if default is not None:
            node["default"] = default
    return node


def _resolved(node: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A node without $ref, allOf and anyOf; what stands beside a reference wins over what it refers to."""
    beside = {key: value for key, value in node.items() if key not in (*_DROPPED, "$ref", "allOf", "anyOf")}
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        return {"x-model": name, **_resolved(definitions[name], definitions), **beside}
    if "allOf" in node:
        (only,) = node["allOf"]
        return {**_resolved(only, definitions), **beside}
    if "anyOf" in node:
        members = [_resolved(member, definitions) for member in node["anyOf"] if member.get("type") != "null"]
        if len(members) == 1:
            return {**members[0], **beside}
        number, text = members
        if (number["type"], text["type"]) != ("integer", "string"):
            raise TypeError(f"Kubernetes has no union of {number['type']} and {text['type']}")
        bounds = {"minimum": number["minimum"], "pattern": text["pattern"], "maxLength": text["maxLength"]}
        return {"x-kubernetes-int-or-string": True, **bounds, **beside}
    return beside


def _default(node: Node, value: Any) -> Any:
    """A default as a manifest would write it: no null, and of an object only what its fields do not have as defaults themselves."""
    if isinstance(value, dict):
        written = {}
        for key, item in value.items():
            field = child(node, key) or {}
            item = _default(field, item)
            if item is not None and item != field.get("default"):
                written[key] = item
        return written
    if isinstance(value, list):
        return [_default(node.get("items", {}), item) for item in value]
    return value
