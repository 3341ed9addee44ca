"""One run on a cluster whose operator is killed at one of its writes, and what must be true of it at its end.

The world of a run is a namespace, a player with an empty store, a proxy, and operator processes one after the other. At the write
that is to be the last one's, the proxy kills it: right before (the request never arrives) or right after (it was done, and nobody
hears of it). The next one finds what it finds.
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
_PATIENCE_SECONDS = 300.0
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


@dataclass(frozen=True)
class Scenario:
    """What is run, and which plans its player has; `writes` says which requests are counted."""

    name: str
    spec: Mapping[str, Any]
    plans: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    writes: Callable[[Asked], bool] = lambda asked: asked.write and asked.resource != "leases"


@dataclass(frozen=True)
class FinalState:
    """What must not depend on who was killed when: everything but times."""

    status: Json
    sealed: Mapping[str, int]
    """Fingerprint → how many times it was computed."""
    children: tuple[str, ...]


@dataclass(frozen=True)
class Crash:
    """`number`: of the write, from 1; of those of one resource where that is named."""

    number: int
    moment: Moment
    resource: str | None = None


@dataclass(frozen=True)
class Outcome:
    """`at`: the write that the operator was killed at; None: the run had fewer writes. `state`: None where it never ended."""

    crash: Crash | None
    at: Asked | None
    state: FinalState | None
    writes: tuple[Asked, ...]
    problems: tuple[str, ...]
    seconds: float

    def differences(self, reference: FinalState) -> tuple[str, ...]:
        """In what it is not as it must be, in words."""
        state = () if self.state is None else _differences("", reference.__dict__, self.state.__dict__)
        return (*self.problems, *state)


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
        return ForkedOperator(forks, folder, self.proxy.kubeconfig, [self.namespace], LEASE_SECONDS="60", **settings)

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
        def described() -> str:
            status = self.run.status
            return f"{self.namespace}: the end of the run; it is {status.get('phase')}: {status.get('message')}"

        try:
            wait_until(lambda: self.finished, "the end of the run", seconds=seconds, every=0.2)
        except AssertionError:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {described()}") from None

    def state(self) -> FinalState:
        children = sorted(f"{kind} {obj['metadata']['name']}" for kind, obj in self._children() if kind != "pods")
        return FinalState(_timeless(self.run.status), dict(self.player.store.sealed), tuple(children))

    def problems(self) -> Iterator[str]:
        """What must never be, however the run ended."""
        for fingerprint, times in self.player.store.sealed.items():
            if times > 1:
                yield f"the artifact {fingerprint[:12]} was computed {times} times"
        jobs = [done for done in self.proxy.writes if (done.asked.method, done.asked.resource) == ("POST", "jobs")]
        for (_, name), times in Counter((done.owner, done.name) for done in jobs if done.status == 201).items():
            if times > 1:
                yield f"the Job {name} was created {times} times for one run"
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


def outcome(cluster: Cluster, forks: Forks, folder: Path, scenario: Scenario, crash: Crash | None) -> Outcome:
    """The run from its beginning to its end: with one operator that is killed at its time, and a second one."""
    begun = time.monotonic()
    with world(cluster, folder, scenario.spec, scenario.plans) as here:
        operator = here.operator(forks)
        killer = Killer(operator, here.proxy, scenario.writes, crash)
        here.proxy.fault = killer
        operator.start(ready=False)
        state = None
        try:
            here.create()
            wait_until(
                lambda: killer.killed.is_set() or (here.finished and here.told),
                "the crash or the end",
                seconds=_PATIENCE_SECONDS,
                every=0.2,
            )
            if killer.killed.is_set():
                operator.start(ready=False)
                here.until_finished()
            state, problems = here.state(), tuple(here.problems())
        except AssertionError as error:
            problems = (str(error),)
        finally:
            operator.kill()
        return Outcome(crash, killer.last, state, tuple(killer.writes), problems, time.monotonic() - begun)


def outcomes(
    cluster: Cluster, forks: Forks, folder: Path, scenario: Scenario, crashes: Sequence[Crash | None], parallel: int
) -> list[Outcome]:
    """Some crashes, each in a run of its own; None: no crash."""

    def one(numbered: tuple[int, Crash | None]) -> Outcome:
        return outcome(cluster, forks, folder / str(numbered[0]), scenario, numbered[1])

    with ThreadPoolExecutor(parallel) as pool:
        return list(pool.map(one, enumerate(crashes)))


def sweep(cluster: Cluster, forks: Forks, folder: Path, scenario: Scenario, parallel: int) -> Iterator[Outcome]:
    """Kill the operator at each write, before and after, as long as runs have so many: one run for each; as they end."""
    crashes = (Crash(number, moment) for number in itertools.count(1) for moment in Moment)
    over: set[Moment] = set()
    taking = threading.Lock()

    def take() -> Crash | None:
        with taking:
            return None if len(over) == len(Moment) else next(crash for crash in crashes if crash.moment not in over)

    def work(ended: Callable[[Outcome], None]) -> None:
        while (crash := take()) is not None:
            found = outcome(cluster, forks, folder / f"{crash.number}-{crash.moment}", scenario, crash)
            if found.at is None:
                over.add(crash.moment)
            ended(found)

    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    with ThreadPoolExecutor(parallel) as pool:
        working = [pool.submit(work, outcomes.put) for _ in range(parallel)]
        while not all(worker.done() for worker in working) or not outcomes.empty():
            with suppress(queue.Empty):
                yield outcomes.get(timeout=0.2)
        for worker in working:
            worker.result()


class Killer:
    """The fault of a proxy: kills the operator at its time."""

    def __init__(self, operator: OperatorProcess, proxy: ApiProxy, counts: Callable[[Asked], bool], crash: Crash | None) -> None:
        self.killed = threading.Event()
        self.last: Asked | None = None
        """What the operator was killed at."""
        self.writes: list[Asked] = []
        self._operator = operator
        self._proxy = proxy
        self._counts = counts
        self._crash = crash
        self._count = 0
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Fault | Cut | None:
        if not self._counts(asked):
            return None
        with self._lock:
            self.writes.append(asked)
            if self._crash is None or self._crash.resource not in (None, asked.resource):
                return None
            self._count += 1
            if self._count != self._crash.number:
                return None
            self.last = asked
        return Cut(after=self._crash.moment is Moment.AFTER, then=self._kill)

    def _kill(self) -> None:
        self._operator.kill()
        self._proxy.hang_up()
        self.killed.set()


def _ended(job: Json) -> bool:
    return any(
        found["type"] in ("Complete", "Failed") and found["status"] == "True" for found in job["status"].get("conditions", ())
    )


def _timeless(value: Any) -> Any:
    """Without the fields that hold a moment or a time span."""
    if isinstance(value, dict):
        return {name: _timeless(inner) for name, inner in value.items() if not name.endswith(("Time", "Seconds", "At"))}
    if isinstance(value, list):
        return [_timeless(inner) for inner in value]
    return value


def _differences(where: str, expected: Any, found: Any) -> Iterator[str]:
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for name in sorted(expected.keys() | found.keys()):
            yield from _differences(f"{where}.{name}", expected.get(name), found.get(name))
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(f"{where}[{number}]", one, other)
    elif expected != found:
        yield f"{where.removeprefix('.')} is {found!r}, and without the crash {expected!r}"
