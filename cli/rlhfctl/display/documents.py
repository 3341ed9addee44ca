"""`-o json|yaml|name`: whole objects, as kubectl prints them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_api import RLHFRun
from rlhf_api.words import GROUP

from .terminal import Terminal


def print_run(run: RLHFRun, output: str, out: Terminal) -> None:
    if output == "name":
        out.line(name_of(run))
    else:
        _print(run.to_wire(), output, out)


def print_list(runs: Sequence[RLHFRun], output: str, out: Terminal) -> None:
    if output == "name":
        for run in runs:
            out.line(name_of(run))
        return
    _print({"apiVersion": "v1", "kind": "List", "items": [run.to_wire() for run in runs]}, output, out)


def name_of(run: RLHFRun) -> str:
    """As `kubectl -o name` spells it."""
    return f"rlhfrun.{GROUP}/{run.metadata.name}"


def to_yaml(wire: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(wire), sort_keys=False, allow_unicode=True, width=100)


def _print(wire: dict[str, Any], output: str, out: Terminal) -> None:
    out.line(json.dumps(wire, indent=2, ensure_ascii=not out.unicode) if output == "json" else to_yaml(wire).rstrip("\n"))
