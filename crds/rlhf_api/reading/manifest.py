"""Manifests as kubectl reads them: YAML 1.1 by the rules of go-yaml v2, then the values that JSON knows.

What differs from PyYAML's own reading: 5e-7 is a number, 1:30 and a date are text, a whole float is an integer (JSON has one
kind of number), keys are text. Duplicate keys, which kubectl refuses with --validate=strict, are refused. Source of the rules:
the resolver of sigs.k8s.io/yaml (goyaml.v2/resolve.go).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

#: Where a value lies: keys and list indexes from the root.
Loc = tuple[str | int, ...]

#: Kubernetes stores no object above 1.5 MiB, and none of ours comes near it.
MAX_CHARACTERS = 1_000_000
#: Values after every alias is written out: a few aliases of aliases must not fill the memory.
MAX_VALUES = 100_000
MAX_DEPTH = 64


class ManifestError(ValueError):
    """The text is no manifest: what is wrong, and at which line (from 1), where there is one."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.line = line


@dataclass(frozen=True)
class Manifest:
    """One document."""

    raw: dict[str, Any]
    """As the API server would get it: nothing but text, numbers, booleans, null, lists and objects with text keys."""
    lines: Mapping[Loc, int]
    """The line (from 1) of each value, by its place."""

    def line(self, loc: Loc) -> int | None:
        """The line of a value, or of the nearest thing around it that is there."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc)


def read_manifest(text: str) -> Manifest:
    """The one document of a manifest. Raises ManifestError, and nothing else, whatever the text is."""
    manifests = read_manifests(text)
    if not manifests:
        raise ManifestError("the manifest is empty; write an RLHFRun, or start from an example")
    if len(manifests) > 1:
        raise ManifestError(
            f"{len(manifests)} documents; give one RLHFRun, and split the rest into files of their own", manifests[1].line(())
        )
    return manifests[0]


def read_manifests(text: str) -> list[Manifest]:
    """Every document of a stream that holds something; empty ones between `---` do not count."""
    if len(text) > MAX_CHARACTERS:
        raise ManifestError(f"the manifest has {len(text)} characters; Kubernetes takes no object above {MAX_CHARACTERS}")
    try:
        nodes = [node for node in _compose_all(text) if not _is_empty(node)]
        return [_document(node) for node in nodes]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise ManifestError(f"not YAML: {what}", None if mark is None else mark.line + 1) from error
    except yaml.YAMLError as error:
        raise ManifestError(f"not YAML: {str(error).splitlines()[0]}") from error
    except ManifestError:
        raise
    except (ValueError, OverflowError) as error:
        # PyYAML's own: an escape such as \U00110000 is no character.
        raise ManifestError(f"not YAML: {error}") from error


_PLAIN = "plain"


class _Loader(yaml.SafeLoader):
    """Leaves plain scalars unresolved: they get the rules of go-yaml, not those of PyYAML."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Told at once: to take in what is nested a thousand deep takes minutes, and then the stack."""
        self._depth += 1
        if self._depth > MAX_DEPTH + 1:
            raise ManifestError(f"nested deeper than {MAX_DEPTH} levels", self.peek_event().start_mark.line + 1)  # type: ignore[no-untyped-call]
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


def _compose_all(text: str) -> Iterator[yaml.Node]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield node
    finally:
        loader.dispose()


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _PLAIN and node.value in _NULLS


def _document(node: yaml.Node) -> Manifest:
    builder = _Builder()
    raw = builder.value(node, ())
    if not isinstance(raw, dict):
        raise ManifestError("not an object: a manifest has apiVersion, kind, metadata and spec", _line(node))
    return Manifest(raw=raw, lines=builder.lines)


class _Builder:
    """Walks one document's nodes; aliases are written out, as JSON has none."""

    def __init__(self) -> None:
        self.lines: dict[Loc, int] = {}
        self._values = 0

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise ManifestError(f"more than {MAX_VALUES} values, aliases written out", _line(node))
        if len(loc) > MAX_DEPTH:
            raise ManifestError(f"nested deeper than {MAX_DEPTH} levels, or an anchor holds itself", _line(node))
        self.lines[loc] = _line(node)
        if isinstance(node, yaml.MappingNode):
            _expect_tag(node, "map")
            return self._object(node, loc)
        if isinstance(node, yaml.SequenceNode):
            _expect_tag(node, "seq")
            return [self.value(child, (*loc, index)) for index, child in enumerate(node.value)]
        return _scalar(node)

    def _object(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _PLAIN and key_node.value == "<<":
                merged = {**self._merged(value_node, loc), **merged}
                continue
            key = _key(key_node)
            if key in own:
                raise ManifestError(f"key {key!r} stands twice in one object; keep one", _line(key_node))
            own[key] = self.value(value_node, (*loc, key))
            self.lines[(*loc, key)] = _line(key_node)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, loc: Loc) -> dict[str, Any]:
        """The keys that `<<` brings: of one object or of a list of them, of which the first wins."""
        if isinstance(node, yaml.MappingNode):
            return dict(self.value(node, loc))
        if isinstance(node, yaml.SequenceNode) and all(isinstance(child, yaml.MappingNode) for child in node.value):
            merged: dict[str, Any] = {}
            for child in node.value:
                merged = {**self.value(child, loc), **merged}
            return merged
        raise ManifestError("`<<` merges an object or a list of objects, nothing else", _line(node))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _expect_tag(node: yaml.Node, kind: str) -> None:
    if node.tag != f"tag:yaml.org,2002:{kind}":
        raise ManifestError(f"tag {node.tag!r} is not for manifests; remove it", _line(node))


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ManifestError("a key is text, not a list or an object", _line(node))
    value = _scalar(node)
    if value is None:
        raise ManifestError("a key is empty", _line(node))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


_TRUE = frozenset({"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})
_FALSE = frozenset({"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_NOT_FINITE = frozenset(
    {".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF"},
)
_INTEGER = re.compile(r"^[-+]?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)|(?P<dec>0|[1-9][0-9]*))$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_TAGGED: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
    "timestamp": (str,),
}
_BASES = {"hex": 16, "bin": 2, "oct": 8, "dec": 10}


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    text: str = node.value
    if node.tag == "tag:yaml.org,2002:str":
        return text
    value = _resolve(text, node)
    if node.tag == _PLAIN:
        return value
    name = node.tag.removeprefix("tag:yaml.org,2002:")
    if name not in _TAGGED:
        raise ManifestError(f"tag {node.tag!r} is not for manifests; remove it", _line(node))
    if not isinstance(value, _TAGGED[name]) or (isinstance(value, bool) and name != "bool"):
        raise ManifestError(f"{text!r} is no {name}", _line(node))
    return value


def _resolve(text: str, node: yaml.Node) -> str | int | float | bool | None:
    """A plain scalar by go-yaml's rules."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text in _NULLS:
        return None
    if text in _NOT_FINITE:
        raise ManifestError(f"{text} is no number that JSON can carry", _line(node))
    if text[0] not in "+-.0123456789":
        return text
    digits = text if text[0] == "." else text.replace("_", "")
    integer = _INTEGER.match(digits)
    if integer is not None and integer.lastgroup is not None:
        if len(digits) > 64:
            raise ManifestError(f"{text[:20]}… is too large a number", _line(node))
        magnitude = int(integer[integer.lastgroup], _BASES[integer.lastgroup])
        return _checked(-magnitude if digits.startswith("-") else magnitude, node)
    if _FLOAT.match(digits):
        number = float(digits)
        if not math.isfinite(number):
            raise ManifestError(f"{text} is too large a number", _line(node))
        # JSON writes 2.0 as 2, and Kubernetes reads it back as an integer.
        return int(number) if number.is_integer() and abs(number) < 2**63 else number
    return text


def _checked(number: int, node: yaml.Node) -> int:
    if not -(2**63) <= number < 2**63:
        raise ManifestError(f"{number} is too large a number: Kubernetes keeps 64 bits", _line(node))
    return number
