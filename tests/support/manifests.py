"""Manifests for tests of the API: a small valid one, and the same with one thing changed."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from rlhf_api.reading.manifest import Loc
from rlhf_api.validation import Problem, validate

#: Takes a field out.
GONE = object()
#: What changes are made of.
DATA = [{"name": "a", "uri": "hf://owner/data"}]
RULE = {"type": "Rule", "rule": {"entryPoint": "grades:judge"}}
MATCHED = {"type": "Rule", "rule": {"regex": {"pattern": "a"}}}
ANSWERED = {"type": "Rule", "rule": {"exactMatch": {}}}
ASKED = {"uri": "hf://owner/prompts", "answerColumn": "answer"}
#: Asks a server of judges.
SERVED = {"type": "Judge", "judge": {"endpoint": {"baseUrl": "http://judge.models:8000/v1", "model": "judge"}}}
TRAINED = {"type": "BradleyTerry", "bradleyTerry": {"model": {"uri": "hf://owner/reward"}}}


def made(**training: Any) -> dict[str, Any]:
    """A Bradley-Terry labeler that the run trains."""
    return {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": DATA, **training}}}


def compared(**training: Any) -> dict[str, Any]:
    """A pairwise labeler that the run trains."""
    return {"type": "Pairwise", "pairwise": {"train": {"data": DATA, **training}}}


MADE = made()


def gate(**fields: Any) -> dict[str, Any]:
    return {"name": "g", "metric": "rewardMean", "action": "Stop", **fields}


def pod(**fields: Any) -> dict[str, Any]:
    return {"spec.sample.pod": fields}


def mounted(**fields: Any) -> dict[str, Any]:
    return pod(volumes=[{"name": "v", "emptyDir": {}}], volumeMounts=[{"name": "v", "mountPath": "/data", **fields}])


def manifest(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A valid manifest with everything required and nothing else; `changes` by path: {"spec.train.maxLength": 3}."""
    raw: dict[str, Any] = {
        "apiVersion": "rlhf.dev/v1alpha1",
        "kind": "RLHFRun",
        "metadata": {"name": "small"},
        "spec": {
            "storage": {"url": "s3://bucket/small"},
            "policy": {"model": {"uri": "hf://owner/policy"}},
            "reward": deepcopy(TRAINED),
            "prompts": {"source": {"uri": "hf://owner/prompts"}},
            "evaluate": {"judge": deepcopy(RULE)},
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


def places(value: Any, loc: Loc = ()) -> Iterator[Loc]:
    """Every place in it, its own first."""
    yield loc
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*loc, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*loc, index))


def limits(gpus: Any) -> dict[str, Any]:
    """Of a pod."""
    return {"resources": {"limits": {"nvidia.com/gpu": gpus}}}
