"""Between the operator and its API server everything goes wrong that a network, a load balancer and an overloaded server do.

A run a fault, all at once, each in a namespace of its own; they must end as a run without a fault does: the same status, but for
times, the same artifacts, each computed once, the same Jobs, each created once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.handle import Cluster
from rlhf_api.words import StageName
from rlhf_operator.core.jobs.names import child_name
from support.api_proxy import ApiProxy, Asked, Cut, Fault
from support.crash_points import WHOLE, FinalState, World, world
from support.operator_forks import Forks
from support.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]

SPEC = {**WHOLE, "iterations": 1}
#: Between a fault and what the client does about it lie waits.
PATIENCE_SECONDS = 600.0


def now_and_then(probability: float, fault: Fault | Cut, counts: Callable[[Asked], bool]) -> Callable[[ApiProxy], None]:
    """By chance, for what is counted in rounds may never let one of the same length through. The Lease's, too."""

    def prepare(proxy: ApiProxy) -> None:
        chance = random.Random(5)
        proxy.fault = lambda asked: fault if counts(asked) and chance.random() < probability else None

    return prepare


def delayed(delays: Callable[[random.Random], Sequence[float]]) -> Callable[[ApiProxy], None]:
    def prepare(proxy: ApiProxy) -> None:
        chance = random.Random(5)
        proxy.delays = lambda event: delays(chance)

    return prepare


def is_write(asked: Asked) -> bool:
    return asked.write


def is_read(asked: Asked) -> bool:
    return not asked.write


def is_any(asked: Asked) -> bool:
    return True


FAULTS: Mapping[str, Callable[[ApiProxy], None]] = {
    "409 to writes": now_and_then(1 / 8, Fault(409, "Conflict"), is_write),
    "429 with Retry-After to all": now_and_then(1 / 8, Fault(429, "TooManyRequests", retry_after=1), is_any),
    "500 to reads": now_and_then(1 / 3, Fault(500, "InternalError"), is_read),
    "500 to writes that were done": now_and_then(1 / 8, Fault(500, "InternalError", after=True), is_write),
    "reset of all": now_and_then(1 / 8, Cut(), is_any),
    "reset of writes that were done": now_and_then(1 / 8, Cut(after=True), is_write),
    "events doubled": delayed(lambda chance: (0.0, chance.uniform(0.0, 2.0))),
    "events late and in another order": delayed(lambda chance: (chance.uniform(0.0, 1.5),)),
    "nothing": lambda proxy: None,
}


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="module")
def ends(cluster: Cluster, crd: None, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, FinalState | str]:
    """How the runs ended; in words where one did not end, or not as any must."""
    # Not in the threads: pytest's factory is made for one.
    folders = {name: tmp_path_factory.mktemp("fault") for name in FAULTS}

    def end(name: str) -> FinalState | str:
        with world(cluster, folders[name], SPEC) as here:
            FAULTS[name](here.proxy)
            with here.operator(forks):
                here.create()
                return ended(here)

    def ended(here: World) -> FinalState | str:
        try:
            here.until_finished(PATIENCE_SECONDS)
        except AssertionError as error:
            return str(error)
        return "; ".join(here.problems()) or here.state()

    with ThreadPoolExecutor(len(FAULTS)) as pool:
        return dict(zip(FAULTS, pool.map(end, FAULTS), strict=True))


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "nothing"])
def test_a_run_ends_as_without_it(ends: Mapping[str, FinalState | str], fault: str) -> None:
    undisturbed, found = ends["nothing"], ends[fault]
    assert isinstance(undisturbed, FinalState), undisturbed
    assert isinstance(found, FinalState), found
    assert found.differences(undisturbed) == ()


def running(here: World, job: str) -> int:
    """Pods of a Job at work, as the API server has them."""
    here.player.wait(0.0)
    pods = [pod for pod in here.run.pods() if pod["metadata"]["labels"]["job-name"] == job]
    return sum(pod["status"].get("phase") == "Running" for pod in pods)


def test_an_api_server_and_its_store_that_are_killed_in_the_middle_cost_nothing(
    cluster: Cluster, forks: Forks, tmp_path: Path, ends: Mapping[str, FinalState | str]
) -> None:
    with world(cluster, tmp_path, SPEC) as here, here.operator(forks) as operator:
        # Both pods of both stages wait: else the run may have ended before the second is killed.
        killed = {"sample": "kube-apiserver", "train": "etcd"}
        for stage in killed:
            here.player.plan(f"{stage}-1", "hang", "hang")
        here.create()
        for stage, component in killed.items():
            job = child_name(here.run.name, 1, StageName(stage), 1)
            wait_until(lambda job=job: running(here, job) == 2, f"{job} at work", seconds=PATIENCE_SECONDS, every=0.1)  # type: ignore[misc]
            cluster.restart(component)
            here.player.finish(job)
        here.until_finished()
        assert list(here.problems()) == []
        assert here.state() == ends["nothing"]
        assert operator.get("/livez") == (200, "ok")


def test_a_clock_that_is_set_back_and_forth_costs_nothing(
    cluster: Cluster, forks: Forks, tmp_path: Path, ends: Mapping[str, FinalState | str]
) -> None:
    with world(cluster, tmp_path, SPEC) as here, here.operator(forks) as operator:
        here.create()
        for stage, seconds in (("evaluate", -7200.0), ("label", 7200.0), ("train", -60.0)):
            here.run.until_stage(stage)
            operator.set_clock(seconds)
        here.until_finished()
        assert list(here.problems()) == []
        assert here.state() == ends["nothing"]
