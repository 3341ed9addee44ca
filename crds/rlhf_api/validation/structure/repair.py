"""Takes wrong parts out of a manifest, so that the rest of it can be checked in the same go."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from rlhf_api.reading.manifest import Loc
from rlhf_api.reading.schema import node_at
from rlhf_api.validation.problem import ABSENT, Problem, value_at

_MODEL = {"uri": "hf://unknown/unknown"}
_SOURCE = {"uri": "hf://unknown/unknown"}
_LABELER = {"type": "Rule", "rule": {"entryPoint": "unknown:unknown"}}

#: What stands where something is required and what is there is wrong. By the field's name; names get a number of their own.
STAND_INS: dict[str, Any] = {
    "apiVersion": "rlhf.dev/v1alpha1",
    "kind": "RLHFRun",
    "metadata": {"name": "unknown"},
    "spec": {
        "storage": {"url": "s3://unknown/unknown"},
        "policy": {"model": _MODEL},
        "reward": _LABELER,
        "prompts": {"source": _SOURCE},
        "evaluate": {"judge": _LABELER},
    },
    "storage": {"url": "s3://unknown/unknown"},
    "url": "s3://unknown/unknown",
    "policy": {"model": _MODEL},
    "model": _MODEL,
    "uri": "hf://unknown/unknown",
    "reward": _LABELER,
    "judge": _LABELER,
    "prompts": {"source": _SOURCE},
    "source": _SOURCE,
    "evaluate": {"judge": _LABELER},
    "type": "Rule",
    "entryPoint": "unknown:unknown",
    "pattern": "unknown",
    "inline": "{}",
    "data": [{"name": "unknown", **_SOURCE}],
    "secretRef": {"name": "unknown"},
    "secretKeyRef": {"name": "unknown", "key": "unknown"},
    "key": "unknown",
    "baseUrl": "http://unknown",
    "value": "",
    "claimName": "unknown",
    "mountPath": "/unknown",
    "metric": "rewardMean",
    "task": "unknown",
    "action": "Warn",
    "iterations": 1,
    "minDelta": 1.0,
    "gate": "unknown",
    "iteration": 1,
    "digest": "0" * 64,
}


class Repairs:
    """`raw` is changed in place; `tainted` collects the places that no longer hold what the manifest says."""

    def __init__(self, raw: dict[str, Any], tainted: set[Loc]) -> None:
        self.raw = raw
        self.tainted = tainted
        self._names = 0
        self._stood_in: set[Loc] = set()

    def apply(self, problems: Sequence[Problem]) -> bool:
        """Mend what the problems name. False: nothing could be changed any more."""
        changed = False
        for problem in problems:
            self.tainted.update(problem.depends)
            changed = self._mend(problem.loc) or changed
        return changed

    def _mend(self, loc: Loc) -> bool:
        if not loc:
            return False
        parent, key = value_at(self.raw, loc[:-1]), loc[-1]
        node = node_at(loc[:-1]) or {}
        self.tainted.add(loc)
        if isinstance(parent, list) and isinstance(key, int):
            if "properties" not in node.get("items", {}) or key >= len(parent):
                return self._mend(loc[:-1])
            parent[key] = {}
            return True
        if not isinstance(parent, dict) or not isinstance(key, str):
            return False
        if key not in node.get("required", ()):
            return parent.pop(key, ABSENT) is not ABSENT
        if loc in self._stood_in:
            return self._mend(loc[:-1])
        self._stood_in.add(loc)
        parent[key] = self._stand_in(key)
        return True

    def _stand_in(self, field: str) -> Any:
        if field == "name":
            self._names += 1
            return f"unknown-{self._names}"
        return deepcopy(STAND_INS[field])
