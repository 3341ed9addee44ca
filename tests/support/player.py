"""Plays the containers of pods that kwok leaves alone (annotation test.rlhf.dev/plan: played): starts them, does what their plans
say, writes their last words, and remembers what was sealed.

It is to the Kubernetes backend what fake_stage.py is to the local one. Scheduler, Job controller and API server are real: the
player only writes pods' statuses, as a kubelet does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from cluster.api import Api, ApiError, Watch
from cluster.stages import PLAN, PLAYED
from rlhf_api.conventions.mounts import CONFIG_FILE
from rlhf_api.metrics import MetricValue
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.stage import PreflightWork, ResolveWork, StageConfig, StageResult
from rlhf_api.words import STAGE_ARTIFACT, StageName
from rlhf_operator.core.chain.history import History, StageRecord
from rlhf_operator.core.jobs.execution import SHARDED
from rlhf_operator.core.plan.planner import Planner, RunStage
from rlhf_operator.kubernetes.objects.labels import STAGE_CONTAINER
from support.runs import MetricsOf, artifact_of, digest_of, improving, result_of

Json = dict[str, Any]

#: What a manifest gives to its pods (`podDefaults.annotations`), so that a player plays them.
ANNOTATIONS = {PLAN: PLAYED}

_LABEL_JOB = "batch.kubernetes.io/job-name"
_INDEX = "batch.kubernetes.io/job-completion-index"
_RETRY_SECONDS = 0.1


@dataclass
class Store:
    """What lies sealed, and which shards are committed. Several players, and several runs, may share one."""

    sealed: dict[str, int] = field(default_factory=dict)
    """Fingerprint → how many times it was computed: more than once is a broken promise."""
    shards: set[tuple[str, int, int]] = field(default_factory=set)
    metrics: MetricsOf = improving

    def work(self, config: StageConfig, shard: int) -> StageResult:
        """What a stage that ends well does, and its result."""
        work = config.work
        if isinstance(work, ResolveWork):
            return self._resolve(config, work)
        if config.stage not in STAGE_ARTIFACT:
            return StageResult(stage=config.stage, attempt=config.execution.attempt, adoptable=self._adoptable(config))
        found = config.fingerprint in self.sealed
        count = config.execution.shards if config.stage in SHARDED else 1
        if count > 1 and not found:
            self.shards.add((config.fingerprint, count, shard))
            if not all((config.fingerprint, count, index) in self.shards for index in range(count)):
                return StageResult(stage=config.stage, attempt=config.execution.attempt, shard=shard)
        if not found:
            self.sealed[config.fingerprint] = self.sealed.get(config.fingerprint, 0) + 1
        result = result_of(config, self.metrics(config.iteration, config.stage))
        return result.model_copy(update={"found": found})

    def _resolve(self, config: StageConfig, work: ResolveWork) -> StageResult:
        attempt = config.execution.attempt
        if config.fingerprint not in self.sealed:
            return StageResult(stage=work.target, attempt=attempt)
        artifact = {"kind": work.kind, "fingerprint": config.fingerprint, "digest": digest_of(config.fingerprint)}
        values = self.metrics(config.iteration, work.target)
        metrics = {metric: MetricValue(value=value) for metric, value in values.items()}
        fields = {"stage": work.target, "attempt": attempt, "found": True, "artifact": artifact, "metrics": metrics}
        return StageResult.model_validate(fields)

    def _adoptable(self, config: StageConfig) -> int:
        """Of preflight: how many stages of the chain, in order, are sealed."""
        if not isinstance(config.work, PreflightWork):
            return 0
        planner = Planner(config.run, RLHFRunSpec.model_validate(config.work.spec))
        history = History((StageRecord(None, StageName.PREFLIGHT),))
        while isinstance(step := planner.next_step(history), RunStage) and artifact_of(step.config) is not None:
            if step.config.fingerprint not in self.sealed:
                break
            metrics = self.metrics(step.config.iteration, step.config.stage)
            history = history.with_result(step.config, result_of(step.config, metrics))
        return history.chain_length


@dataclass(frozen=True)
class Start:
    """One container that was started."""

    label: str
    """`<stage>-<iteration>`, `resolve:<stage>-<iteration>`."""
    index: int
    attempt: int
    pod: str
    plan: str


class Player:
    """A context manager; plays every pod of its namespace that is for a player, in a thread of its own.

    Plans, one a start: `exit CODE` (and says why), `silent CODE`, `no-result` (seals), `seal-and-die` (137), `oom`, `evicted`,
    `disrupted` (143, DisruptionTarget), `node-lost` (no exit code), `hang` (until it is deleted: 143), `deaf` (until `kill`).
    Without a plan a stage does its work and ends well. A container beside the stage's goes on until the pod is deleted.
    """

    def __init__(self, api: Api, namespace: str, store: Store | None = None) -> None:
        self.store = store or Store()
        self.sidecars_end_with = 0
        """The exit code of a container beside the stage's that is told to end."""
        self.starts: list[Start] = []
        self._api = api
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._config_maps = f"/api/v1/namespaces/{namespace}/configmaps"
        self._plans: dict[str, list[str]] = {}
        self._playing: dict[str, str] = {}
        """Pod UID → its plan, from its start to its end."""
        self._lock = threading.RLock()
        self._news = threading.Event()
        self._closed = threading.Event()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> Player:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def plan(self, stage: str, *plans: str) -> None:
        """For the next starts of `<stage>-<iteration>[-<index>]`; `resolve:<stage>-<iteration>` for its resolve Jobs."""
        with self._lock:
            self._plans[stage] = list(plans)

    def wait(self, seconds: float = 0.2) -> None:
        """Until something has happened to a pod."""
        self._news.wait(seconds)
        self._news.clear()
        if self.error is not None:
            raise AssertionError("the player failed") from self.error

    def kill(self, job: str) -> None:
        """SIGKILL to the containers of a Job that run now."""
        for pod in self._api.get(self._pods, labelSelector=f"{_LABEL_JOB}={job}")["items"]:
            with self._lock:
                if self._playing.pop(pod["metadata"]["uid"], None) is not None:
                    self._end(pod, 137)

    def finish(self, job: str) -> None:
        """The pods of a Job that hang do their work after all."""
        for pod in self._api.get(self._pods, labelSelector=f"{_LABEL_JOB}={job}")["items"]:
            with self._lock:
                if self._playing.pop(pod["metadata"]["uid"], None) is not None:
                    config = self._config(pod)
                    assert config is not None, f"{job} has no configuration any more"
                    self._act(pod, config, _index(pod), [])

    def close(self) -> None:
        """Nothing is played any more; its pods that still run are removed."""
        self._closed.set()
        if self._watch is not None:
            self._watch.close()
        self._thread.join()
        with suppress(OSError, ApiError):
            for pod in self._api.get(self._pods)["items"]:
                if _is_played(pod) and pod.get("status", {}).get("phase") in ("Pending", "Running"):
                    self._remove(pod)

    # --- the kubelet's part ---

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._follow()
            except (OSError, ApiError):
                # The API server is away, or the watch too old: list again.
                self._closed.wait(_RETRY_SECONDS)
            except Exception as error:
                self.error = error
                self._news.set()
                return

    def _follow(self) -> None:
        listed = self._api.get(self._pods)
        for pod in listed["items"]:
            self._see(pod)
        self._watch = self._api.watch(self._pods, listed["metadata"]["resourceVersion"])
        if self._closed.is_set():
            return
        for kind, pod in self._watch:
            if kind in ("ADDED", "MODIFIED"):
                self._see(pod)
            self._news.set()

    def _see(self, pod: Json) -> None:
        if self._closed.is_set() or not _is_played(pod):
            return
        uid, phase = pod["metadata"]["uid"], pod.get("status", {}).get("phase", "Pending")
        with self._lock, suppress(_Gone):
            if "deletionTimestamp" in pod["metadata"]:
                if self._playing.get(uid) == "deaf":
                    return
                if self._playing.pop(uid, None) is not None:
                    self._end(pod, 143, self._words(pod, "It was told to stop, and wrote a checkpoint."))
                if pod["status"].get("phase") == "Running":
                    self._end_sidecars(pod)
                self._remove(pod)
            elif phase == "Pending" and uid not in self._playing and pod["spec"].get("nodeName"):
                self._start(pod)

    def _start(self, pod: Json) -> None:
        config = self._config(pod)
        if config is None:
            # As a kubelet waits for the volumes of a pod.
            timer = threading.Timer(_RETRY_SECONDS, self._look_again, (pod,))
            timer.daemon = True
            timer.start()
            return
        index, plan = _index(pod), self._next_plan(config, _index(pod))
        self.starts.append(Start(_label(config), index, config.execution.attempt, pod["metadata"]["name"], plan))
        self._playing[pod["metadata"]["uid"]] = plan
        now = _now()
        running = [_container(each, {"running": {"startedAt": now}}) for each in pod["spec"]["containers"]]
        conditions = [_condition(name, now) for name in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")]
        self._tell(pod, {"phase": "Running", "startTime": now, "containerStatuses": running, "conditions": conditions})
        if plan not in ("hang", "deaf"):
            self._act(pod, config, index, plan.split())
            self._playing.pop(pod["metadata"]["uid"], None)

    def _act(self, pod: Json, config: StageConfig, index: int, plan: list[str]) -> None:
        def says(problem: str) -> str:
            return _wire(StageResult(stage=config.stage, attempt=config.execution.attempt, problem=problem))

        match plan:
            case []:
                self._end(pod, 0, _wire(self.store.work(config, index)))
            case ["exit", code]:
                self._end(pod, int(code), says(f"It was planned to fail with {code}."))
            case ["silent", code]:
                self._end(pod, int(code))
            case ["no-result"]:
                self.store.work(config, index)
                self._end(pod, 0)
            case ["seal-and-die"]:
                self.store.work(config, index)
                self._end(pod, 137)
            case ["oom"]:
                self._end(pod, 137, reason="OOMKilled")
            case ["disrupted"]:
                self._end(pod, 143, says("It was told to stop."), conditions=[_condition("DisruptionTarget", _now())])
            case ["evicted"]:
                lost = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}
                self._tell(pod, lost)
            case ["node-lost"]:
                self._tell(pod, {"phase": "Failed", "conditions": [_condition("DisruptionTarget", _now())]})
            case _:
                raise AssertionError(f"there is no plan {' '.join(plan)!r}")

    def _end(
        self, pod: Json, code: int, words: str = "", *, reason: str | None = None, conditions: list[Json] | None = None
    ) -> None:
        now = _now()
        ended = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": words,
            "startedAt": _started(pod) or now,
            "finishedAt": now,
        }
        stage, beside = _containers(pod)
        running = [_container(each, {"running": {"startedAt": ended["startedAt"]}}) for each in beside]
        status: Json = {
            "phase": "Running" if running else "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [*running, _container(stage, {"terminated": ended})],
            "conditions": [_condition("Ready", now, met=False), *(conditions or [])],
        }
        self._tell(pod, status)

    def _end_sidecars(self, pod: Json) -> None:
        """Of a pod whose stage's container has ended: now the pod has."""
        stage, beside = _containers(pod)
        told = next(found for found in pod["status"]["containerStatuses"] if found["name"] == stage["name"])
        if not beside or "terminated" not in told["state"]:
            return
        code, now = self.sidecars_end_with, _now()
        state = {"terminated": {"exitCode": code, "reason": "Completed", "startedAt": now, "finishedAt": now}}
        well = code == told["state"]["terminated"]["exitCode"] == 0
        statuses = [*(_container(each, state) for each in beside), told]
        self._tell(pod, {"phase": "Succeeded" if well else "Failed", "containerStatuses": statuses})

    def _tell(self, pod: Json, status: Json) -> None:
        """Until an API server that is away has heard it, as a kubelet does: what a pod came to is not forgotten."""
        uid = {"uid": pod["metadata"]["uid"]}
        while True:
            try:
                pod["status"] = self._api.patch(f"{self._path(pod)}/status", {"metadata": uid, "status": status})["status"]
            except ApiError as error:
                if error.status in (404, 409):
                    raise _Gone from error
                if error.status < 500 and error.status != 429:
                    raise
            except OSError:
                pass
            else:
                return
            if self._closed.wait(_RETRY_SECONDS):
                raise _Gone

    def _remove(self, pod: Json) -> None:
        with suppress(ApiError):
            self._api.delete(self._path(pod), gracePeriodSeconds=0, preconditions={"uid": pod["metadata"]["uid"]})

    def _look_again(self, pod: Json) -> None:
        with suppress(OSError, ApiError):
            now = self._api.find(self._path(pod))
            if now is not None:
                self._see(now)

    # --- the stage's part ---

    def _config(self, pod: Json) -> StageConfig | None:
        """What is mounted at /etc/rlhf."""
        found = self._api.find(f"{self._config_maps}/{pod['metadata']['labels'][_LABEL_JOB]}")
        return None if found is None else StageConfig.model_validate(yaml.safe_load(found["data"][CONFIG_FILE]))

    def _words(self, pod: Json, problem: str) -> str:
        config = self._config(pod)
        return "" if config is None else _wire(StageResult(stage=config.stage, attempt=config.execution.attempt, problem=problem))

    def _next_plan(self, config: StageConfig, index: int) -> str:
        plans = self._plans.get(f"{_label(config)}-{index}") or self._plans.get(_label(config))
        return plans.pop(0) if plans else ""

    def _path(self, pod: Json) -> str:
        return f"{self._pods}/{pod['metadata']['name']}"


class _Gone(Exception):  # noqa: N818 - it is no fault
    """The pod was removed under the player's hands."""


def _is_played(pod: Json) -> bool:
    return _annotations(pod).get(PLAN) == PLAYED


def _annotations(pod: Json) -> Mapping[str, str]:
    return pod["metadata"].get("annotations") or {}


def _index(pod: Json) -> int:
    return int(_annotations(pod).get(_INDEX, "0"))


def _label(config: StageConfig) -> str:
    work = config.work
    resolving, stage = isinstance(work, ResolveWork), work.target if isinstance(work, ResolveWork) else config.stage
    return f"{'resolve:' if resolving else ''}{stage}-{config.iteration or 0}"


def _containers(pod: Json) -> tuple[Json, list[Json]]:
    """The stage's, and those beside it."""
    beside = [container for container in pod["spec"]["containers"] if container["name"] != STAGE_CONTAINER]
    return next(container for container in pod["spec"]["containers"] if container not in beside), beside


def _container(container: Json, state: Json) -> Json:
    ready = "running" in state
    same = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
    return {**same, "ready": ready, "started": ready, "state": state}


def _condition(kind: str, now: str, *, met: bool = True) -> Json:
    return {"type": kind, "status": str(met), "lastTransitionTime": now}


def _started(pod: Json) -> str | None:
    states = [container["state"] for container in pod.get("status", {}).get("containerStatuses", [])]
    return next((state["running"]["startedAt"] for state in states if "running" in state), None)


def _wire(result: StageResult) -> str:
    return json.dumps(result.to_wire())


def _now() -> str:
    """Kubernetes tells times by the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
