"""Whatever is changed in a manifest: what the API server refuses, rlhfctl validate refuses; what it keeps, the operator reads."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import pytest

from cluster.api import Api, ApiError
from cluster.handle import Cluster
from rlhf_api.reading.manifest import read_manifest
from rlhf_api.resource.run import RLHFRun
from rlhf_api.validation import validate
from rlhf_api.validation.problem import value_at
from support.crd_server import create
from support.documents import ROOT
from support.manifests import places

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]
Json = dict[str, Any]
EXAMPLES = [read_manifest(path.read_text()).raw for path in sorted((ROOT / "examples").glob("*.yaml"))]
NUMBERS = [0, 1, -1, 2, 3, 7, 0.5, 1.5, -0.5, 1e-9, 1e13, 10**10, 2**31 - 1, 2**31, 2**63 - 1]
WORDS = ["", "a", "A", "x" * 63, "x" * 64, "ü", "1", "true", "500m", "1Gi", "a\nb", " a", "a ", "/a", "..", "a/../b", "rlhf.dev/x"]
URLS = ["s3://bucket/x", "s3://bucket", "s3://ab", "file:///x", "file://x", "hf://a/b", "hf://a", "hf://a/b/c", "hf:///b"]
TYPES = ["Latest", "Number", "Best", "Model", "Window", "IPO", "SimPO", "CDPO", "BradleyTerry", "Rule", "Pairwise"]
METRICS = ["winRateVsPrevious", "winRateVsInitial", "yield", "klToInitial", "Pause", "Stop"]
SHAPES: list[Any] = [None, True, False, {}, [], [1], ["a"], [{}], {"a": "b"}, {"name": "a"}, {"name": "a", "key": "b"}]
VALUES = [*NUMBERS, *WORDS, *URLS, *TYPES, *METRICS, *SHAPES]
CASES = 120


def test_what_the_api_server_refuses_we_refuse_and_what_it_keeps_we_read(cluster: Cluster) -> None:
    rng = random.Random(9)
    taken = 0
    with cluster.namespace() as place:
        for _ in range(CASES):
            raw = changed(rng.choice(EXAMPLES), rng)
            raw["metadata"] = {"name": "changed"}
            checked = validate(raw)
            answer = kept_or_refused(cluster.api, raw, place)
            if isinstance(answer, ApiError):
                assert answer.status in (400, 422), answer
                assert "evaluation error" not in answer.message
                assert checked.invalid, f"{answer}: {raw}"
                continue
            taken += 1
            if checked.run is not None:
                assert RLHFRun.model_validate(answer).spec == checked.run.spec, raw
    assert CASES / 20 < taken < CASES / 2, "the changes are too wild, or too tame, to say anything"


def kept_or_refused(api: Api, raw: Json, place: str) -> Json | ApiError:
    try:
        return create(api, raw, place, dry=True)
    except ApiError as error:
        return error


def changed(raw: Json, rng: random.Random) -> Json:
    """One to three places of the spec with another value, with that of another place, or gone."""
    raw = deepcopy(raw)
    for _ in range(rng.choice([1, 1, 2, 3])):
        every = [loc for loc in places(raw["spec"]) if loc]
        *around, key = rng.choice(every)
        parent: Any = value_at(raw["spec"], tuple(around))
        fate = rng.random()
        if fate < 0.15 and isinstance(parent, dict):
            del parent[key]
        elif fate < 0.3:
            parent[key] = deepcopy(value_at(raw["spec"], rng.choice(every)))
        else:
            parent[key] = deepcopy(rng.choice(VALUES))
    return raw
