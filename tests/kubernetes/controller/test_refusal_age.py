"""Since when something is refused: of refusals in a row the first one counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from kubernetes.client import Configuration

from rlhf_api.words import StageName
from rlhf_operator.core.actions import CreateJob
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.errors import Forbidden
from rlhf_operator.kubernetes.api.resources import Resource
from rlhf_operator.kubernetes.controller.backend import KubernetesBackend
from rlhf_operator.kubernetes.installation import Installation
from rlhf_operator.kubernetes.objects.keys import Kind, RunKey
from rlhf_operator.kubernetes.watch.index import Index
from support.backend_contract import launched
from support.runs import run_of


class Refusing(Cluster):
    def create(self, resource: Resource, namespace: str, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        raise Forbidden(403, "Forbidden", "exceeded quota: jobs")


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


def test_what_is_refused_again_is_refused_since_the_first_time() -> None:
    run, index, clock = run_of(), Index(), Clock()
    index.put(Kind.RUN, run.model_dump(mode="json", by_alias=True, exclude_none=True))
    key = RunKey(run.metadata.namespace, run.metadata.name)
    backend = KubernetesBackend(key, Refusing(Configuration()), index, Installation(image="example/image:1"), clock)
    job = next(action for action in launched(run, StageName.PREFLIGHT) if isinstance(action, CreateJob))
    backend.observe(live=False)
    first = clock.time
    for _ in range(3):
        assert not backend.apply(run, job)
        clock.time += timedelta(minutes=1)
    seen = backend.observe(live=False)
    assert seen is not None
    assert [refusal.since for refusal in seen.observed.refusals] == [first]
