"""Manifests for tests of the API: a small valid one, and the same with one thing changed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from rlhf_api.validation import Problem, validate

#: Takes a field out.
GONE = object()


def manifest(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A valid manifest with everything required and nothing else; `changes` by path: {"spec.train.maxLength": 3}."""
    raw: dict[str, Any] = {
        "apiVersion": "rlhf.dev/v1alpha1",
        "kind": "RLHFRun",
        "metadata": {"name": "small"},
        "spec": {
            "storage": {"url": "s3://bucket/small"},
            "policy": {"model": {"uri": "hf://owner/policy"}},
            "reward": {"type": "BradleyTerry", "bradleyTerry": {"model": {"uri": "hf://owner/reward"}}},
            "prompts": {"source": {"uri": "hf://owner/prompts"}},
            "evaluate": {"judge": {"type": "Rule", "rule": {"entryPoint": "grades:judge"}}},
        },
    }
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        place = raw
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is GONE:
            place.pop(last)
        else:
            place[last] = deepcopy(value)
    return raw


def problems(changes: dict[str, Any], *, local: bool = False) -> list[Problem]:
    """Of the small manifest with these changes."""
    return list(validate(manifest(changes), local=local).problems)


def paths(changes: dict[str, Any], *, local: bool = False) -> list[str]:
    """Where the problems are, in order."""
    return [problem.path for problem in problems(changes, local=local)]
