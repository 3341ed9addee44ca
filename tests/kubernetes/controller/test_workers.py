"""The workers: whatever a round raises, it is told, counted and tried again, and the worker lives on."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import StageName
from rlhf_operator.core.actions import CreateJob
from rlhf_operator.core.observed import Pod
from rlhf_operator.kubernetes.api.errors import NotLeader, Unavailable
from rlhf_operator.kubernetes.api.requests import verb_and_resource
from rlhf_operator.kubernetes.controller.rounds import Rounds
from rlhf_operator.kubernetes.controller.workers import Workers
from rlhf_operator.kubernetes.objects.keys import RunKey
from rlhf_operator.kubernetes.telemetry.gaps import Gaps
from rlhf_operator.kubernetes.telemetry.health import Heartbeats
from rlhf_operator.kubernetes.telemetry.metrics import Metrics
from rlhf_operator.kubernetes.watch.workqueue import Backoff, WorkQueue
from rlhf_operator.ports import Seen
from support.runs import BENCHMARKED, run_of, spec_of
from support.simulation import World
from support.tape import DONE, End, Tape
from support.waiting import wait_until

A, B = RunKey("alignment", "a"), RunKey("alignment", "b")


class Bench:
    def __init__(self) -> None:
        self.queue: WorkQueue[RunKey] = WorkQueue(time.monotonic)
        self.metrics = Metrics()
        self.leading = threading.Event()
        self.leading.set()

    @contextmanager
    def working(self, round_of: Callable[[RunKey], timedelta | None], count: int = 1) -> Iterator[None]:
        workers = Workers(
            self.queue,
            round_of,
            wait_until_leading=self.leading.wait,
            backoff=Backoff(first=0.01),
            metrics=self.metrics,
            heartbeats=Heartbeats(time.monotonic),
            clock=time.monotonic,
        )
        workers.start(count)
        try:
            yield
        finally:
            self.leading.set()
            assert workers.stop(10)

    def value(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_round_that_fails_is_told_with_its_run_counted_and_tried_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    rounds: list[RunKey] = []

    def fails_twice(key: RunKey) -> None:
        rounds.append(key)
        if rounds.count(key) <= 2:
            raise KeyError("a mistake")

    with caplog.at_level(logging.ERROR), bench.working(fails_twice):
        bench.queue.add(A)
        wait_until(lambda: rounds.count(A) == 3, "the third try")
    told = [record for record in caplog.records if record.exc_info]
    assert [getattr(record, "run", None) for record in told] == ["alignment/a", "alignment/a"]
    assert bench.value("rlhf_reconcile_errors_total") == 2
    assert bench.value("rlhf_reconcile_seconds_count") == 3


def test_what_the_api_server_answers_is_told_without_a_traceback(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    rounds: list[RunKey] = []

    def fails_once(key: RunKey) -> None:
        rounds.append(key)
        if len(rounds) == 1:
            raise Unavailable(503, "ServiceUnavailable", "etcd is away")

    with caplog.at_level(logging.ERROR), bench.working(fails_once):
        bench.queue.add(A)
        wait_until(lambda: len(rounds) == 2, "the second try")
    [record] = caplog.records
    assert "etcd is away" in record.getMessage()
    assert not record.exc_info


def test_a_server_that_asks_for_time_gets_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def is_refused(key: RunKey) -> None:
        raise Unavailable(429, "TooManyRequests", "try again later", retry_after=20.0)

    with caplog.at_level(logging.ERROR), bench.working(is_refused):
        bench.queue.add(A)
        wait_until(lambda: caplog.records, "the refusal")
    assert [getattr(record, "retry_in_seconds", None) for record in caplog.records] == [20.0]


def test_one_run_that_always_fails_does_not_hold_up_the_others(bench: Bench) -> None:
    done: list[RunKey] = []

    def fails_for_a(key: RunKey) -> None:
        if key == A:
            raise ValueError("always")
        done.append(key)

    with bench.working(fails_for_a):
        for _ in range(5):
            bench.queue.add_all([A, B])
            done.clear()
            wait_until(lambda: done == [B], "the other run's round")


def test_a_run_comes_again_when_its_round_says(bench: Bench) -> None:
    rounds: list[float] = []

    def soon(key: RunKey) -> timedelta | None:
        rounds.append(time.monotonic())
        return timedelta(seconds=0.05) if len(rounds) < 3 else None

    with bench.working(soon):
        bench.queue.add(A)
        wait_until(lambda: len(rounds) == 3, "three rounds")
    assert rounds[2] - rounds[0] >= 0.1
    assert bench.queue.depth() == 0


def test_without_the_lease_nothing_is_worked_at_and_with_it_nothing_was_lost(bench: Bench) -> None:
    rounds: list[RunKey] = []

    def loses_the_lease(key: RunKey) -> None:
        rounds.append(key)
        if len(rounds) == 1:
            bench.leading.clear()
            raise NotLeader("lost")

    with bench.working(loses_the_lease):
        bench.queue.add_all([A, B])
        wait_until(lambda: not bench.leading.is_set() and bench.queue.depth() == 2, "both to be put back")
        assert rounds == [A]
        bench.leading.set()
        wait_until(lambda: sorted(rounds) == [A, A, B], "both to be worked at")
    assert bench.value("rlhf_reconcile_errors_total") == 0


def test_a_run_that_ends_is_looked_at_again_at_once_and_then_when_its_ttl_is_over() -> None:
    world = World(run_of(spec_of(iterations=1, ttlSecondsAfterFinished=60)))
    rounds = Rounds(lambda _: world, world.clock, Metrics(), Gaps(time.monotonic, lambda _: None))
    while world.run.status is None or not world.run.status.phase.finished:
        wait = rounds(A)
        world.step()
    assert wait == timedelta(0)
    wait = rounds(A)
    assert wait is not None
    assert timedelta(0) < wait <= timedelta(seconds=60)


class Overtaken(World):
    """Somebody else always writes the status first."""

    def write_status(self, seen: Seen, status: RLHFRunStatus) -> bool:
        return False


def test_a_round_that_lost_the_race_for_the_status_is_not_tried_again_at_once() -> None:
    run = run_of(spec_of(iterations=1))
    run = run.model_copy(update={"spec": run.spec.model_copy(update={"cancel": True})})
    world = Overtaken(run)
    wait = Rounds(lambda _: world, world.clock, Metrics(), Gaps(time.monotonic, lambda _: None))(A)
    assert wait is not None
    assert wait > timedelta(0)


def job(name: str, condition: str | None = None, **metadata: str) -> dict[str, object]:
    conditions = [] if condition is None else [{"type": condition, "status": "True"}]
    return {"metadata": {"name": name, **metadata}, "spec": {}, "status": {"conditions": conditions}}


def test_a_gap_is_from_the_first_word_of_a_jobs_end_to_the_next_job() -> None:
    now, found = [10.0], list[float]()
    gaps = Gaps(lambda: now[0], found.append)
    gaps.created(A, "1")
    now[0] += 60
    gaps.told(A, job("1"))
    now[0] += 60
    gaps.told(A, job("1", "Complete"))
    now[0] += 0.25
    gaps.told(A, job("1", "Complete"))
    now[0] += 0.25
    gaps.created(A, "2")
    assert found == [0.5]


def test_the_end_of_a_job_that_is_told_after_the_next_one_came_begins_no_gap() -> None:
    now, found = [10.0], list[float]()
    gaps = Gaps(lambda: now[0], found.append)
    gaps.created(A, "1")
    gaps.ended(A, "1")
    now[0] += 0.5
    gaps.created(A, "2")
    gaps.told(A, job("1", "Complete"))
    now[0] += 3600
    gaps.ended(A, "1")
    gaps.ended(A, "2")
    now[0] += 0.25
    gaps.created(A, "3")
    assert found == [0.5, 0.25]


def test_a_run_that_waits_for_a_person_has_no_gap() -> None:
    now, found = [10.0], list[float]()
    gaps = Gaps(lambda: now[0], found.append)
    gaps.created(A, "1")
    gaps.told(A, job("1", "Failed"))
    gaps.waits(A)
    now[0] += 3600
    gaps.told(A, job("1", "Failed"))
    gaps.created(A, "2")
    gaps.created(B, "1")
    gaps.told(B, job("1", "Complete", deletionTimestamp="2026-01-01T00:00:00Z"))
    gaps.created(B, "2")
    assert found == []


@pytest.mark.parametrize("evaluate", [{}, {"evaluate": BENCHMARKED}], ids=["the chain", "benchmarks beside it"])
def test_the_gaps_of_a_whole_run_are_no_longer_than_its_rounds_though_no_watch_tells_of_a_job(evaluate: dict[str, Any]) -> None:
    looks = Counter[str]()

    def fate(action: CreateJob, _pod: Pod, _tape: Tape) -> End | None:
        """Benchmarks take their time."""
        looks[action.name] += 1
        return None if action.stage is StageName.BENCHMARK and looks[action.name] < 8 else DONE

    world = World(run_of(spec_of(iterations=1, **evaluate)), fate=fate)
    found: list[float] = []
    rounds = Rounds(lambda _: world, world.clock, Metrics(), Gaps(lambda: world.clock.now().timestamp(), found.append))
    while world.run.status is None or not world.run.status.phase.finished:
        rounds(A)
        rounds(A)
        world.step()
        world.clock.advance(1000)
    chain = [job for job in world.created if job.stage is not StageName.BENCHMARK]
    assert len(found) == len(chain) - 1 - bool(evaluate), "one before each, but where finalize waits for what is beside"
    assert max(found) < 1000


@pytest.mark.parametrize(
    ("method", "path", "watch", "expected"),
    [
        ("GET", "/apis/rlhf.dev/v1alpha1/rlhfruns", False, ("list", "rlhfruns")),
        ("GET", "/apis/rlhf.dev/v1alpha1/namespaces/jobs/rlhfruns", True, ("watch", "rlhfruns")),
        ("GET", "/apis/rlhf.dev/v1alpha1/namespaces/a/rlhfruns/pods", False, ("get", "rlhfruns")),
        ("PATCH", "/apis/rlhf.dev/v1alpha1/namespaces/a/rlhfruns/b/status?fieldManager=x", False, ("patch", "rlhfruns/status")),
        ("POST", "/apis/batch/v1/namespaces/a/jobs", False, ("create", "jobs")),
        ("DELETE", "/apis/batch/v1/namespaces/a/jobs/b", False, ("delete", "jobs")),
        ("GET", "/api/v1/pods", True, ("watch", "pods")),
        ("GET", "/apis/apps/v1/namespaces/a/deployments/b", False, ("get", "other")),
        ("GET", "/apis", False, ("get", "other")),
        ("GET", "/api/v1", False, ("get", "other")),
    ],
)
def test_requests_are_named_as_rbac_names_them(method: str, path: str, watch: bool, expected: tuple[str, str]) -> None:
    assert verb_and_resource(method, path, watch) == expected
