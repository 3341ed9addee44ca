"""What a schema node asks for, in words: the half of a problem that says what would be right."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlhf_api.reading.schema import Node

#: Patterns of the models, in words. A test asks for every one of them.
PATTERNS = {
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": "small letters, digits and -, with a letter or digit at both ends",
    r"^[a-z]([-a-z0-9]*[a-z0-9])?$": "small letters, digits and -, a letter first and no - at the end",
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$": "small letters, digits, - and .",
    r"^[-._a-zA-Z0-9]+$": "letters, digits, -, _ and .",
    r"^(hf|s3|file)://.+$": "hf://owner/name, s3://bucket/path or file:///path",
    r"^(s3|file)://.*[^/]$": "s3://bucket/prefix or file:///folder, without / at the end",
    r"^https?://.+$": "http:// or https:// and a host",
    r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$": "http:// or https://, a host and a path, without user or query",
    r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$": 'a quantity, as "500m", "8" or 64Gi',
    r"^[a-zA-Z0-9]([-._a-zA-Z0-9/]*[a-zA-Z0-9])?$": "the name of a resource, as cpu or nvidia.com/gpu",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "letters, digits and _, no digit first",
    r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$": "module:function",
    r"^(Exists|Equal)$": "Exists or Equal",
    r"^(NoSchedule|PreferNoSchedule|NoExecute)$": "NoSchedule, PreferNoSchedule or NoExecute",
    r"^(Memory)?$": "Memory",
    r"^/.+$": "an absolute path",
    r"^[0-9a-f]{64}$": "a SHA-256 in hexadecimal digits",
}


#: Upper bounds that stand for "no bound of the matter".
NO_BOUNDS = (2**31 - 1, 1e12, math.inf)


def expected(node: Node) -> str:
    """What the node takes: `a whole number from 1 to 50`, `one of Max, Min`."""
    if "enum" in node:
        return one_of(node["enum"])
    if node.get("x-kubernetes-int-or-string"):
        return f"a whole number, or {PATTERNS[node['pattern']]}"
    match node.get("type"):
        case "integer":
            return f"a whole number{_range(node)}"
        case "number":
            return f"a number{_range(node)}"
        case "boolean":
            return "true or false"
        case "array":
            return f"a list of {_count(node, 'minItems', 'maxItems', 'entries')}"
        case "object":
            return _object(node)
    return _text(node)


def one_of(words: Sequence[str]) -> str:
    """`Max or Min`; `one of A, B, C`."""
    return " or ".join(words) if len(words) < 3 else f"one of {', '.join(words)}"


def _object(node: Node) -> str:
    fields = list(node.get("properties", ()))
    if not fields:
        return f"an object of at most {node['maxProperties']} keys" if "maxProperties" in node else "an object"
    required = node.get("required")
    if required:
        return f"an object with {', '.join(required)}"
    return f"an object with any of {', '.join(fields)}" if len(fields) <= 8 else "an object"


def _text(node: Node) -> str:
    if node.get("format") == "date-time":
        return "a time, as 2026-01-31T12:00:00Z"
    kind = PATTERNS.get(node.get("pattern", ""), "text")
    length = _count(node, "minLength", "maxLength", "characters")
    return f"{kind}, {length}" if length and (kind == "text" or node["maxLength"] < 64) else kind


def _count(node: Node, lower: str, upper: str, unit: str) -> str:
    most, least = node.get(upper), node.get(lower, 0)
    if most is None:
        return unit
    return f"{least} to {most} {unit}" if least else f"at most {most} {unit}"


def _range(node: Node) -> str:
    low, high = node.get("minimum", -math.inf), node.get("maximum", math.inf)
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    open_above = high in NO_BOUNDS
    if low == -math.inf and open_above:
        return ""
    if open_above:
        return f" above {low:g}" if above else f" of at least {low:g}"
    if above or below:
        return (
            f" above {low:g} and {'below' if below else 'at most'} {high:g}"
            if above
            else f" of at least {low:g} and below {high:g}"
        )
    return f" from {low:g} to {high:g}"
