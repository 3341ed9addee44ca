"""The manifest against the schema: every structural problem, in words, and a run to check the rules on.

The models of pydantic do the work; their errors are translated here, and nowhere else. Where a manifest is wrong, the wrong part is
taken out (or a stand-in put in, where something is required), so that the rest can still be checked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rlhf_api.reading.manifest import Loc
from rlhf_api.reading.schema import Node, child, node_at, run_schema
from rlhf_api.resource.run import RLHFRun
from rlhf_api.validation.phrases import NO_BOUNDS, expected
from rlhf_api.validation.problem import ABSENT, Problem, value_at
from rlhf_api.validation.suggest import did_you_mean

from .misplaced import unknown_field
from .repair import Repairs

#: Each round takes out what the one before it uncovered; manifests of flesh and blood need two.
ROUNDS = 12


@dataclass(frozen=True)
class Structure:
    """`run` is None where the manifest is too broken to say more of it."""

    run: RLHFRun | None
    problems: tuple[Problem, ...]
    tainted: frozenset[Loc]
    """Places of `run` that do not hold what the manifest says."""


def check_structure(raw: dict[str, Any], tainted: frozenset[Loc] = frozenset()) -> Structure:
    """`raw` is normal (see normal.py) and changed here; `tainted` is what was taken out of it already."""
    problems: list[Problem] = []
    repairs = Repairs(raw, set(tainted))
    for _ in range(ROUNDS):
        try:
            run = _parse(raw)
        except ValidationError as error:
            found = _translate(error, raw)
        else:
            return Structure(run, tuple(problems), frozenset(repairs.tainted))
        problems += [problem for problem in found if not consequential(problem, repairs.tainted)]
        if not repairs.apply(found):
            break
    return Structure(None, tuple(problems), frozenset(repairs.tainted))


def consequential(problem: Problem, tainted: set[Loc] | frozenset[Loc]) -> bool:
    """Whether the problem lies in, or was concluded from, a place that is wrong itself."""
    return any(place[: len(wrong)] == wrong for place in (problem.loc, *problem.depends) for wrong in tainted)


def _parse(raw: dict[str, Any]) -> RLHFRun:
    """Strict as the API server: "3" is no number, 3 is no text, and names are those of the wire."""
    return RLHFRun.model_validate_json(json.dumps(raw), strict=True, by_alias=True, by_name=False)


def _translate(error: ValidationError, raw: dict[str, Any]) -> list[Problem]:
    problems: dict[Loc, Problem] = {}
    for detail in error.errors(include_url=False):
        problem = _problem(detail, raw)
        # A union complains once for each of its members.
        problems.setdefault(problem.loc, problem)
    return list(problems.values())


def _problem(detail: ErrorDetails, raw: dict[str, Any]) -> Problem:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_field(detail["loc"], raw)
    if kind == "duplicate_entry":
        return _duplicate((*detail["loc"], context["index"], context["attribute"]), raw)
    loc, node, is_key = _place(detail["loc"])
    if is_key:
        names = expected(node.get("propertyNames", {"type": "string"}))
        return Problem(loc, "the key has the wrong form", f"a key is {names}", value_at(raw, loc))
    if kind == "missing":
        return Problem(loc, "required, and absent", f"give {expected(node)}")
    value = value_at(raw, loc)
    if value is ABSENT:
        return Problem(loc, "not what belongs here", f"write {expected(node)}")
    return Problem(loc, _wrong(kind, value, node), _right(kind, value, node), value)


def _place(loc: tuple[int | str, ...]) -> tuple[Loc, Node, bool]:
    """Where pydantic's location is in the manifest: without the members of unions. True: a map's key is wrong, not its value."""
    node: Node = run_schema()
    place: Loc = ()
    for index, key in enumerate(loc):
        if key == "[key]" and index == len(loc) - 1:
            return place, node_at(place[:-1]) or {}, True
        below = child(node, key)
        if below is None:
            break
        node, place = below, (*place, key)
    return place, node, False


def _duplicate(loc: Loc, raw: dict[str, Any]) -> Problem:
    attribute = loc[-1]
    return Problem(loc, f"another entry has this {attribute}", f"make each {attribute} unique", value_at(raw, loc))


def _wrong(kind: str, value: Any, node: Node) -> str:
    if kind in ("enum", "literal_error"):
        return "not one of the values that there are"
    if kind == "string_pattern_mismatch" or (isinstance(value, str) and "pattern" in node and kind != "string_too_long"):
        return "has the wrong form"
    if kind in ("greater_than", "greater_than_equal"):
        return "too small"
    if kind in ("less_than", "less_than_equal"):
        return "too large"
    if kind in ("too_long", "too_short"):
        return f"has {len(value)} entries"
    if kind in ("string_too_long", "string_too_short"):
        return f"has {len(value)} characters"
    return f"is {_type_name(value)}"


def _right(kind: str, value: Any, node: Node) -> str:
    if kind in ("enum", "literal_error") and isinstance(value, str):
        return " ".join(part for part in (did_you_mean(value, node.get("enum", ())), f"write {expected(node)}") if part)
    if node.get("type") == "string" and "enum" not in node and isinstance(value, bool | int | float):
        return f'put it in quotes: "{json.dumps(value)}"'
    if node.get("x-kubernetes-int-or-string") and isinstance(value, float):
        return f'put it in quotes: "{value}"'
    if kind == "less_than_equal" and node["maximum"] in NO_BOUNDS:
        return f"write at most {node['maximum']:.12g}"
    return f"write {expected(node)}"


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return {dict: "an object", list: "a list", type(None): "null"}.get(type(value), "of another type")
