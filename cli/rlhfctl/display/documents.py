"""`-o json|yaml|name`: whole objects, as kubectl prints them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_api import RLHFRun
from rlhf_api.words import GROUP
from rlhfctl.sources.source import Stored

from .terminal import Terminal


def print_run(run: RLHFRun, output: str, out: Terminal) -> None:
    _print_one(run.to_wire(), output, out)


def print_stored(run: Stored, output: str, out: Terminal) -> None:
    """As it is stored."""
    _print_one(run.raw, output, out)


def print_list(runs: Sequence[RLHFRun], output: str, out: Terminal, stored: Sequence[Stored] = ()) -> None:
    """Those of another version come last."""
    items: list[Mapping[str, Any]] = [*(run.to_wire() for run in runs), *(run.raw for run in stored)]
    if output == "name":
        for item in items:
            out.line(name_of(item["metadata"]["name"]))
        return
    _print({"apiVersion": "v1", "kind": "List", "items": items}, output, out)


def name_of(run: str) -> str:
    """As `kubectl -o name` spells it."""
    return f"rlhfrun.{GROUP}/{run}"


def to_yaml(wire: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(wire), sort_keys=False, allow_unicode=True, width=100)


def _print_one(wire: Mapping[str, Any], output: str, out: Terminal) -> None:
    if output == "name":
        out.line(name_of(wire["metadata"]["name"]))
    else:
        _print(wire, output, out)


def _print(wire: Mapping[str, Any], output: str, out: Terminal) -> None:
    out.line(
        json.dumps(wire, indent=2, ensure_ascii=not out.unicode, default=str) if output == "json" else to_yaml(wire).rstrip("\n")
    )
