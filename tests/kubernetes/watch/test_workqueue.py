"""The queue: each key once, by one worker at a time, now or later; and how long a key that fails waits."""

from __future__ import annotations

import threading
import time

import pytest

from rlhf_operator.kubernetes.watch.workqueue import Backoff, WorkQueue
from support.waiting import wait_until


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> WorkQueue[str]:
    return WorkQueue(clock)


def taken(queue: WorkQueue[str]) -> list[str]:
    """Everything that can be had now, done at once."""
    keys = []
    while (key := queue.get(timeout=0)) is not None:
        queue.done(key)
        keys.append(key)
    return keys


def test_a_key_put_in_often_is_given_out_once_and_in_order(queue: WorkQueue[str]) -> None:
    queue.add_all(["a", "b", "a", "c", "b"])
    queue.add("a")
    assert queue.depth() == 3
    assert taken(queue) == ["a", "b", "c"]
    assert queue.depth() == 0


def test_a_key_that_is_put_in_first_comes_before_those_that_wait_and_once(queue: WorkQueue[str]) -> None:
    queue.add_all(["a", "b", "c"])
    queue.add_first("c")
    queue.add_first("new")
    assert queue.depth() == 4
    assert taken(queue) == ["new", "c", "a", "b"]


def test_a_key_that_is_put_in_first_while_at_work_comes_again_after(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.get(timeout=0) == "a"
    queue.add_first("a")
    assert queue.get(timeout=0) is None
    queue.done("a")
    assert taken(queue) == ["a"]


def test_a_key_at_work_is_not_given_to_a_second_worker_but_comes_again_after(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.get(timeout=0) == "a"
    queue.add("a")
    queue.add("a")
    assert queue.get(timeout=0) is None
    assert queue.depth() == 1
    queue.done("a")
    assert taken(queue) == ["a"]


def test_a_key_comes_at_its_time(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("late", 10)
    queue.add_after("soon", 5)
    assert taken(queue) == []
    clock.now += 5
    assert taken(queue) == ["soon"]
    clock.now += 5
    assert taken(queue) == ["late"]


def test_of_two_times_the_earlier_one_counts(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 5)
    queue.add_after("a", 60)
    queue.add_after("a", 2)
    clock.now += 2
    assert taken(queue) == ["a"]
    clock.now += 60
    assert taken(queue) == []


def test_a_time_is_dropped_when_the_key_is_taken_before_it(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 5)
    queue.add("a")
    assert taken(queue) == ["a"]
    clock.now += 5
    assert taken(queue) == []


def test_a_time_that_comes_while_the_key_is_at_work_is_one_more_round(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add("a")
    assert queue.get(timeout=0) == "a"
    queue.add_after("a", 1)
    clock.now += 1
    assert queue.get(timeout=0) is None
    queue.done("a")
    assert taken(queue) == ["a"]


def test_times_that_were_dropped_take_no_memory_and_lose_no_other(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("first", 10)
    queue.add_after("last", 1000)
    for _ in range(1000):
        queue.add_after("busy", 500)
        queue.add("busy")
        assert taken(queue) == ["busy"]
    assert len(queue._alarms) < 100
    clock.now += 10
    assert taken(queue) == ["first"]
    clock.now += 990
    assert taken(queue) == ["last"]


def test_whoever_waits_is_let_go_when_it_closes(queue: WorkQueue[str]) -> None:
    got: list[str | None] = []
    threads = [threading.Thread(target=lambda: got.append(queue.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    queue.close()
    for thread in threads:
        thread.join(5)
    assert got == [None, None, None]
    queue.add("a")
    assert queue.get(timeout=0) is None


def test_many_workers_never_share_a_key_and_lose_none() -> None:
    """Each of 40 keys is put in 50 times, by two threads, while eight workers take them."""
    queue: WorkQueue[int] = WorkQueue(time.monotonic)
    lock = threading.Lock()
    at_work: set[int] = set()
    shared: list[int] = []
    put = dict.fromkeys(range(40), 0)
    seen = dict.fromkeys(range(40), 0)

    def work() -> None:
        while (key := queue.get()) is not None:
            with lock:
                if key in at_work:
                    shared.append(key)
                at_work.add(key)
                seen[key] = put[key]
            with lock:
                at_work.discard(key)
            queue.done(key)

    def feed(delay: float) -> None:
        for _ in range(25):
            for key in range(40):
                with lock:
                    put[key] += 1
                queue.add(key) if delay == 0 else queue.add_after(key, delay)

    workers = [threading.Thread(target=work) for _ in range(8)]
    feeders = [threading.Thread(target=feed, args=(delay,)) for delay in (0.0, 0.001)]
    for thread in [*workers, *feeders]:
        thread.start()
    for thread in feeders:
        thread.join()
    # The last time that a key was put in is followed by a look at it.
    wait_until(lambda: all(count == 50 for count in seen.values()), "every key to be looked at after it was last put in")
    queue.close()
    for thread in workers:
        thread.join(5)
    assert shared == []


def test_waits_double_up_to_the_longest_and_begin_again_after_a_success() -> None:
    backoff: Backoff[str] = Backoff(first=1.0, longest=10.0)
    assert [backoff.failed("a") for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert backoff.failed("b") == 1.0
    backoff.succeeded("a")
    assert backoff.failed("a") == 1.0
