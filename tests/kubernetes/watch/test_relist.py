"""The full list: whatever fails on the way, what it has found is looked at."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import Configuration

from rlhf_operator.kubernetes.api.client import Cluster, Page
from rlhf_operator.kubernetes.api.errors import ApiError, Forbidden, Unavailable
from rlhf_operator.kubernetes.api.resources import JOBS, RUNS, Resource
from rlhf_operator.kubernetes.objects.keys import Kind, RunKey
from rlhf_operator.kubernetes.watch.index import Index
from rlhf_operator.kubernetes.watch.relist import WATCHED, Relist
from rlhf_operator.kubernetes.watch.workqueue import WorkQueue


class Lists(Cluster):
    """What the API server answers to each list: nothing, unless a test says otherwise."""

    def __init__(self) -> None:
        super().__init__(Configuration())
        self.items: dict[tuple[Resource, str | None], list[dict[str, Any]]] = {}
        self.errors: dict[tuple[Resource, str | None], ApiError] = {}

    def pages(self, resource: Resource, namespace: str | None = None, **_: Any) -> Iterator[Page]:
        if error := self.errors.get((resource, namespace)):
            raise error
        yield Page(self.items.get((resource, namespace), []), "1")


class Bench:
    def __init__(self, *namespaces: str) -> None:
        self.lists, self.index = Lists(), Index()
        self.queue: WorkQueue[RunKey] = WorkQueue(time.monotonic)
        self.relist = Relist(self.lists, self.index, self.queue, namespaces=namespaces, seconds=300, indexed=threading.Event())

    def queued(self) -> set[RunKey]:
        found = set()
        while (key := self.queue.get(timeout=0)) is not None:
            self.queue.done(key)
            found.add(key)
        return found


def run(namespace: str = "a", name: str = "tiny") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}/{name}", "resourceVersion": "1"}}


def test_what_one_list_brought_is_looked_at_though_the_next_one_fails() -> None:
    bench = Bench()
    bench.lists.items[RUNS, None] = [run()]
    bench.lists.errors[JOBS, None] = Unavailable(503, "ServiceUnavailable", "etcd is away")
    with pytest.raises(Unavailable):
        bench.relist.once()
    assert bench.index.count(Kind.RUN) == 1
    assert bench.queued() == {RunKey("a", "tiny")}


def test_a_namespace_that_is_gone_does_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench("a", "b")
    for namespace in ("a", "b"):
        bench.lists.items[RUNS, namespace] = [run(namespace)]
    bench.relist.once()
    assert bench.queued() == {RunKey("a", "tiny"), RunKey("b", "tiny")}
    for resource, _ in WATCHED.values():
        bench.lists.errors[resource, "a"] = Forbidden(403, "Forbidden", "rlhfruns is forbidden in the namespace a")
    bench.lists.items[RUNS, "b"] += [run("b", "second")]
    with caplog.at_level(logging.WARNING):
        bench.relist.once()
        bench.relist.once()
    [told] = caplog.records
    assert "namespace a cannot be listed" in told.getMessage()
    assert bench.index.keys() == {RunKey("b", "tiny"), RunKey("b", "second")}
    assert {RunKey("a", "tiny"), RunKey("b", "second")} <= bench.queued()
    bench.lists.errors.clear()
    bench.relist.once()
    assert bench.index.run(RunKey("a", "tiny")) is not None
    assert RunKey("a", "tiny") in bench.queued()


def test_an_operator_that_may_list_nothing_at_all_forgets_nothing_and_says_so() -> None:
    bench = Bench("a", "b")
    bench.lists.items[RUNS, "a"] = [run()]
    bench.relist.once()
    for namespace in ("a", "b"):
        bench.lists.errors[RUNS, namespace] = Forbidden(403, "Forbidden", "rlhfruns is forbidden")
    with pytest.raises(Forbidden):
        bench.relist.once()
    assert bench.index.keys() == {RunKey("a", "tiny")}
