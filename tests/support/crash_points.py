"""Runs on a cluster whose operator is killed at its writes, and what must be true of them at their ends.

The world of a run is a namespace, a player with an empty store, a proxy, and operator processes one after the other. At a write
that is chosen the proxy kills the operator: right before (the request never arrives, or late) or right after (it was done, and
nobody hears of it). The next operator finds what it finds.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from cluster.api import Json
from cluster.handle import Cluster
from support import player
from support.api_proxy import ApiProxy, Asked, Cut, Fault
from support.operated_runs import ClusterRun
from support.operator_forks import ForkedOperator, Forks
from support.operator_process import OperatorProcess
from support.player import Player
from support.waiting import wait_until

#: Two iterations, two shards, a train on two nodes; the same storage for all, or they would not be the same runs.
WHOLE: Mapping[str, Any] = {
    "iterations": 2,
    "sample": {"shards": 2, "parallelism": 2},
    "train": {"compute": {"nodes": 2, "processesPerNode": 1}},
}
_FINISHED = ("Succeeded", "Failed", "Cancelled")
#: Of a whole run, on a machine that does much else.
_PATIENCE_SECONDS = 900.0
_LOOK_SECONDS = 0.5
#: Until a controller has written what it knows; it gathers for a second.
_CONTROLLER_SECONDS = 30.0
_CHILDREN = (
    ("/apis/batch/v1", "jobs"),
    ("/api/v1", "pods"),
    ("/api/v1", "services"),
    ("/api/v1", "configmaps"),
    ("/apis/networking.k8s.io/v1", "networkpolicies"),
)


class Moment(StrEnum):
    BEFORE = "before"
    AFTER = "after"
    LATE = "late"
    """Before, and the request arrives all the same: between the first and the second write of the next operator."""


@dataclass(frozen=True)
class Scenario:
    """What is run, and which plans its player has."""

    name: str
    spec: Mapping[str, Any]
    plans: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class FinalState:
    """What must not depend on who was killed when: everything but times."""

    status: Json
    sealed: Mapping[str, int]
    """Fingerprint → how many times it was computed."""
    children: tuple[str, ...]

    def differences(self, reference: FinalState) -> tuple[str, ...]:
        return tuple(_differences("", reference.__dict__, self.__dict__))


@dataclass(frozen=True)
class Write:
    """`which` tells it from all other writes of the run, and not from the same write of another one."""

    method: str
    resource: str
    which: str


@dataclass(frozen=True)
class Crash:
    write: Write
    moment: Moment


#: Whether to kill the operator at this write of a run.
Choose = Callable[[Write], Moment | None]


@dataclass(frozen=True)
class Outcome:
    """`state`: None where the run never ended."""

    crashes: tuple[Crash, ...]
    state: FinalState | None
    writes: tuple[Write, ...]
    problems: tuple[str, ...]
    seconds: float

    def differences(self, reference: FinalState) -> tuple[str, ...]:
        """In what it is not as it must be, in words."""
        return (*self.problems, *(() if self.state is None else self.state.differences(reference)))


class World:
    """A run that is not there yet, and everything that it needs but an operator."""

    def __init__(self, cluster: Cluster, namespace: str, proxy: ApiProxy, player: Player, spec: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.proxy = proxy
        self.player = player
        self.run = ClusterRun(cluster, namespace, "tiny")
        self._spec = spec

    def operator(self, forks: Forks, **settings: str) -> ForkedOperator:
        """Not started. One after the other they have one identity, so that none waits for the Lease of a dead one; it is long, for
        many worlds keep the machine busy.
        """
        folder = self.proxy.kubeconfig.parent
        return ForkedOperator(forks, folder, self.proxy.kubeconfig, [self.namespace], **{"LEASE_SECONDS": "60", **settings})

    def create(self) -> None:
        """Its pods are played."""
        storage = {"url": "s3://bucket/tiny"}
        self.run.create(**{"podDefaults": {"annotations": player.ANNOTATIONS}, "storage": storage, **self._spec})

    @property
    def finished(self) -> bool:
        self.player.wait(0.0)
        status = self.run.status
        ended = status.get("phase") in _FINISHED
        return ended and (self._spec.get("ttlSecondsAfterFinished") is None or not self._children())

    @property
    def told(self) -> bool:
        """Its end, by an event: the last that an operator writes of a run which keeps its children."""
        phase = self.run.status.get("phase")
        return any(event["message"].startswith(f"{phase}: ") for event in self.run.events())

    def until_finished(self, seconds: float = _PATIENCE_SECONDS) -> None:
        self.until(lambda: self.finished, seconds, every=_LOOK_SECONDS)

    def until(self, condition: Callable[[], bool], seconds: float = _PATIENCE_SECONDS, every: float = 0.0) -> None:
        try:
            wait_until(condition, f"{self.namespace}: the end of the run", seconds=seconds, every=every)
        except AssertionError as error:
            status = self.run.status
            raise AssertionError(f"{error}; it is {status.get('phase')}: {status.get('message')}") from None

    def state(self) -> FinalState:
        children = sorted(f"{kind} {obj['metadata']['name']}" for kind, obj in self._children() if kind != "pods")
        return FinalState(timeless(self.run.status), dict(self.player.store.sealed), tuple(children))

    def problems(self) -> Iterator[str]:
        """What must never be, however the run ended."""
        for fingerprint, times in self.player.store.sealed.items():
            if times > 1:
                yield f"the artifact {fingerprint[:12]} was computed {times} times"
        done = [done.asked for done in self.proxy.writes if done.status == 201 and done.asked.resource == "jobs"]
        made = Counter((asked.json["metadata"]["ownerReferences"][0]["uid"], asked.name) for asked in done)
        yield from (f"the Job {name} was created {times} times for one run" for (_, name), times in made.items() if times > 1)
        with suppress(AssertionError):
            # The run may have ended first: its last Job's pods have, and their controller says so a second later.
            self.until(lambda: all(_ended(obj) for kind, obj in self._children() if kind == "jobs"), _CONTROLLER_SECONDS, every=0.2)
        children = self._children()
        living = {self.run.uid} | {obj["metadata"]["uid"] for _, obj in children}
        for kind, obj in children:
            name = f"{kind} {obj['metadata']['name']}"
            owners = {owner["uid"] for owner in obj["metadata"].get("ownerReferences", ())}
            if not owners & living:
                yield f"{name} has no living owner"
            if kind == "jobs" and not _ended(obj):
                yield f"{name} is still at work"
            if kind == "pods" and obj["status"].get("phase") not in ("Succeeded", "Failed"):
                yield f"{name} is still {obj['status'].get('phase')}"

    def _children(self) -> list[tuple[str, Json]]:
        """Everything in the namespace, whatever its labels say."""
        return [
            (plural, obj)
            for root, plural in _CHILDREN
            for obj in self.cluster.api.get(f"{root}/namespaces/{self.namespace}/{plural}")["items"]
            if obj["metadata"]["name"] != "kube-root-ca.crt"
        ]


@contextmanager
def world(
    cluster: Cluster, folder: Path, spec: Mapping[str, Any], plans: Mapping[str, tuple[str, ...]] | None = None
) -> Iterator[World]:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        cluster.namespace() as namespace,
        Player(cluster.api, namespace) as played,
        ApiProxy(cluster.api, folder) as proxy,
    ):
        for stage, starts in (plans or {}).items():
            played.plan(stage, *starts)
        yield World(cluster, namespace, proxy, played, spec)


def outcome(cluster: Cluster, forks: Forks, folder: Path, scenario: Scenario, choose: Choose = lambda _: None) -> Outcome:
    """The run from its beginning to its end; each operator that is killed has a successor."""
    begun = time.monotonic()
    with world(cluster, folder, scenario.spec, scenario.plans) as here:
        operator = here.operator(forks)
        killer = Killer(operator, here.proxy, choose)
        here.proxy.fault = killer
        state = None
        try:
            here.create()
            while killer.restart():
                here.until(lambda: killer.killed.wait(_LOOK_SECONDS) or (here.finished and (bool(killer.crashes) or here.told)))
            killer.deliver()
            state, problems = here.state(), tuple(here.problems())
        except AssertionError as error:
            problems = (str(error),)
        finally:
            if operator.running:
                operator.kill()
        return Outcome(tuple(killer.crashes), state, tuple(killer.writes), problems, time.monotonic() - begun)


def outcomes(
    cluster: Cluster, forks: Forks, folder: Path, scenario: Scenario, choices: Sequence[Choose], parallel: int
) -> list[Outcome]:
    """Several such runs at a time."""

    def one(numbered: tuple[int, Choose]) -> Outcome:
        return outcome(cluster, forks, folder / str(numbered[0]), scenario, numbered[1])

    with ThreadPoolExecutor(parallel) as pool:
        return list(pool.map(one, enumerate(choices)))


def sweep(cluster: Cluster, forks: Forks, folder: Path, scenario: Scenario, *, spacing: int, parallel: int) -> Iterator[Outcome]:
    """Kill the operator at each moment of each write, whichever there are: runs, as they end, until one shows no new write.

    In one run at least `spacing` writes lie between two crashes.
    """
    seen = Seen(spacing)
    numbers = itertools.count(1)
    over = threading.Event()
    ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

    def work() -> None:
        while not over.is_set():
            found = outcome(cluster, forks, folder / str(next(numbers)), scenario, seen.chooser())
            if not found.crashes:
                over.set()
            ended.put(found)

    with ThreadPoolExecutor(parallel) as pool:
        working = [pool.submit(work) for _ in range(parallel)]
        while not all(worker.done() for worker in working) or not ended.empty():
            with suppress(queue.Empty):
                yield ended.get(timeout=0.2)
        for worker in working:
            worker.result()


class Seen:
    """The crashes that have been, of all runs. Thread-safe."""

    def __init__(self, spacing: int) -> None:
        self._spacing = spacing
        self._crashes: set[Crash] = set()
        self._lock = threading.Lock()

    def chooser(self) -> Choose:
        """For one run."""
        since = itertools.count(self._spacing)

        def choose(write: Write) -> Moment | None:
            nonlocal since
            with self._lock:
                if next(since) < self._spacing:
                    return None
                for moment in Moment:
                    if (crash := Crash(write, moment)) not in self._crashes:
                        self._crashes.add(crash)
                        since = itertools.count(0)
                        return moment
            return None

        return choose


class Killer:
    """The fault of a proxy: kills the operator at the writes that are chosen."""

    def __init__(self, operator: OperatorProcess, proxy: ApiProxy, choose: Choose) -> None:
        self.killed = threading.Event()
        self.killed.set()
        self.crashes: list[Crash] = []
        self.writes: list[Write] = []
        self._operator = operator
        self._proxy = proxy
        self._choose = choose
        self._status = ""
        self._late: Asked | None = None
        self._until_late = 0
        self._lock = threading.Lock()

    def restart(self) -> bool:
        """The first one, too; False: the one before lives."""
        if not self.killed.is_set():
            return False
        self.killed.clear()
        self._operator.start(ready=False)
        return True

    def __call__(self, asked: Asked) -> Fault | Cut | None:
        if not asked.write:
            return None
        with self._lock:
            if self.killed.is_set() or not self._operator.running:
                return Cut()
            if asked.resource != "leases":
                self._until_late -= 1
                if self._until_late == 0:
                    self.deliver()
            write = Write(asked.method, asked.resource, self._which(asked))
            self.writes.append(write)
            moment = self._choose(write)
            if moment is None:
                return None
            self.crashes.append(Crash(write, moment))
            if moment is not Moment.AFTER:
                self._operator.kill()
            if moment is Moment.LATE:
                self.deliver()
                self._late, self._until_late = asked, 2
        return Cut(after=moment is Moment.AFTER, then=self._kill)

    def deliver(self) -> None:
        """What is late."""
        late, self._late = self._late, None
        if late is not None:
            self._proxy.deliver(late)

    def _kill(self) -> None:
        if self._operator.running:
            self._operator.kill()
        self._proxy.hang_up()
        self.killed.set()

    def _which(self, asked: Asked) -> str:
        """What is written under which status: the same thing is written again at each stage."""
        if asked.resource == "leases":
            return ""
        if asked.resource == "rlhfruns/status":
            self._status = _stages(asked.json["status"])
        what = asked.json["message"] if asked.resource == "events" else asked.name
        return f"{what} {self._status}"


def timeless(value: Any) -> Any:
    """Without the fields that hold a moment or a time span."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if not name.endswith(("Time", "Seconds", "At"))}
    if isinstance(value, list):
        return [timeless(inner) for inner in value]
    return value


def _stages(status: Json) -> str:
    """Where a run is. What a message says of pods that wait is another in every run."""
    stages = [*status.get("stages", ()), *(stage for entry in status.get("iterations", ()) for stage in entry["stages"])]
    where = [(stage["name"], stage["phase"], stage.get("attempt"), stage.get("resolving")) for stage in stages]
    return f"{status['phase']} {where}"


def _ended(job: Json) -> bool:
    conditions = job["status"].get("conditions", ())
    return any(found["type"] in ("Complete", "Failed") and found["status"] == "True" for found in conditions)


def _differences(where: str, expected: Any, found: Any) -> Iterator[str]:
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for name in sorted(expected.keys() | found.keys()):
            yield from _differences(f"{where}.{name}", expected.get(name), found.get(name))
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(f"{where}[{number}]", one, other)
    elif expected != found:
        yield f"{where.removeprefix('.')} is {found!r}, and undisturbed {expected!r}"
