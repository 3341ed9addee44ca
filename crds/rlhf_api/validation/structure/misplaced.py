"""Fields that the schema does not have: a misspelt name, or a right name in the wrong place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_api.reading.manifest import Loc
from rlhf_api.reading.schema import Node, node_at, run_schema, walk
from rlhf_api.validation.problem import Problem, format_path, value_at
from rlhf_api.validation.suggest import fold, nearest


def unknown_field(loc: Loc, raw: dict[str, Any]) -> Problem:
    """A suggestion makes the problem depend on the field that was meant: what follows from its absence is no news."""
    parent, name = node_at(loc[:-1]) or {}, str(loc[-1])
    fields = list(parent.get("properties", ()))
    match = nearest(name, fields)
    if match is not None:
        right, meant = f"did you mean {match}?", (*loc[:-1], match)
        return Problem(loc, "unknown field", right, value_at(raw, loc), depends=(meant,))
    places = list(_places(parent, name))
    if places:
        meant = (*loc[:-1], *places[0])
        return Problem(loc, "unknown field", f"did you mean {'.'.join(places[0])}?", value_at(raw, loc), depends=(meant,))
    elsewhere = [format_path(("spec", *path)) for path in _places(run_schema()["properties"]["spec"], name) if "pod" not in path]
    if elsewhere:
        return Problem(loc, "unknown field", f"did you mean {' or '.join(elsewhere[:2])}?", value_at(raw, loc))
    known = f"there are {', '.join(fields)}" if 0 < len(fields) <= 16 else f"see `rlhfctl explain {format_path(loc[:-1])}`"
    return Problem(loc, "unknown field", known, value_at(raw, loc))


def _places(node: Node, name: str) -> Iterator[tuple[str, ...]]:
    """Fields of this name below a node, the nearest first; lists and maps are not looked into."""
    found = [path for path, _ in walk(node) if fold(path[-1]) == fold(name)]
    return iter(sorted(found, key=len))
