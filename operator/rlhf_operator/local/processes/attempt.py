"""One attempt at work: what a cluster's Job controller does, with processes for pods."""

from __future__ import annotations

import os
import queue
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from rlhf_api.conventions.log_names import KEEP_LOG
from rlhf_api.stage import StageConfig, StageResult
from rlhf_api.words import Reason, StageExit
from rlhf_operator.core.actions import CreateJob, Topology
from rlhf_operator.core.attempts.outcome import is_ignored
from rlhf_operator.core.observed import JobPhase, PodState
from rlhf_operator.local.errors import writing
from rlhf_operator.local.folder.progress import progress_file
from rlhf_operator.local.folder.records import AttemptRecord, PodRecord, remove_scratch, scratch_folder
from rlhf_operator.ports import Clock

from .environment import ReservedPort, stage_environment
from .launcher import SUPERVISOR, Launcher, Process
from .leases import Devices, visible
from .machine import Machine
from .sizing import at_a_time, gpus, threads

CONFIG_FILE = "stage.yaml"
_SIGKILLED = 137
#: From SIGTERM to SIGKILL, where the manifest's pod does not say.
_GRACE = timedelta(seconds=60)

#: Variables of a stage that nothing else inherits.
_OF_A_STAGE = ("PET_", "RLHF_RESULT", "RLHF_SCRATCH", KEEP_LOG, SUPERVISOR)

StageCommand = Callable[[StageConfig, Path], Sequence[str]]


@dataclass(frozen=True)
class Exit:
    """A process ended; put into the queue by the thread that waited for it."""

    attempt: str
    pod: str
    code: int


@dataclass(frozen=True)
class Runtime:
    """What attempts share."""

    command: StageCommand
    launcher: Launcher
    machine: Machine
    clock: Clock
    exits: queue.SimpleQueue[Exit]
    wake: threading.Event
    base_environment: Mapping[str, str]
    devices: Devices


@dataclass
class _Running:
    process: Process
    oom_kills: int | None


class LiveAttempt:
    """Belongs to the supervisor's thread; only `Exit`s come from others."""

    def __init__(
        self, record: AttemptRecord, action: CreateJob, folder: Path, logs: Callable[[int | None], Path], runtime: Runtime
    ) -> None:
        self.record = record
        self.deleting = False
        self._action = action
        self._folder = folder
        self._logs = logs
        self._runtime = runtime
        self._running: dict[str, _Running] = {}
        self._kill_at: datetime | None = None
        self._leased: dict[str, tuple[str, ...]] = {}
        self._chosen: int | None = None
        self._rendezvous = ReservedPort() if action.shape.topology is Topology.GANG else None

    @property
    def busy(self) -> bool:
        """Some process of it lives."""
        return bool(self._running)

    @property
    def waits_for(self) -> str | None:
        """What it lacks to begin, if it has not begun."""
        begun = any(pod.state is not PodState.PENDING for pod in self.record.pods)
        return None if begun or self.deleting else self._runtime.devices.missing(self._action, len(self._next()))

    @property
    def _together(self) -> int:
        """Pods at a time: by what is free when the first begins, and then for good, for the rest must not run otherwise."""
        return at_a_time(self._action, self._runtime.machine) if self._chosen is None else self._chosen

    @property
    def needs_devices(self) -> bool:
        return self._runtime.devices.needed(self._action)

    @property
    def wants_more(self) -> bool:
        """A pod of it would start if there were devices for it."""
        return not self.deleting and self.record.phase is JobPhase.ACTIVE and bool(self._next())

    @property
    def kill_at(self) -> datetime | None:
        """When what was told to stop is killed."""
        return self._kill_at if self._running else None

    def start(self) -> None:
        """Make a pod an index. `fill` starts them."""
        for index in range(self.record.completions):
            self._add_pod(index)
        self._save()

    def fill(self) -> None:
        """Start as many pods as go at a time and as there are devices for."""
        while self.wants_more:
            pods = self._next()
            leased = self._runtime.devices.take(self._action, [pod.uid for pod in pods])
            if leased is None:
                break
            self._chosen = self._together
            self._leased |= leased
            for pod in pods:
                self._launch(pod)
            self._save()

    def _next(self) -> list[PodRecord]:
        """Pods that start together, when they do: one; of a gang all."""
        free = self._together - len(self._running)
        return self._pending()[: free if self.record.topology is Topology.GANG else min(free, 1)]

    def delete(self) -> None:
        """SIGTERM now, SIGKILL after the grace; it is gone when its processes are."""
        if not self.deleting:
            self.deleting = True
            self._stop_all()

    def kill(self) -> None:
        for running in self._running.values():
            running.process.kill()

    def kill_overdue(self, now: datetime) -> None:
        if self._kill_at is not None and now >= self._kill_at:
            self.kill()

    def forget(self, ended: Exit) -> _Running:
        """The process is gone, and its scratch folder with it; nothing follows."""
        remove_scratch(self._folder, ended.pod)
        self._runtime.devices.give_back(ended.pod)
        running = self._running.pop(ended.pod)
        if not self._running:
            self._runtime.devices.give_back(self.record.name)
        return running

    def on_exit(self, ended: Exit) -> None:
        running = self.forget(ended)
        pod = next(pod for pod in self.record.pods if pod.uid == ended.pod)
        done = pod.model_copy(
            update={
                "state": PodState.SUCCEEDED if ended.code == StageExit.DONE else PodState.FAILED,
                "exit_code": ended.code,
                "reason": self._reason(ended.code, running),
                "finished_at": self._runtime.clock.now(),
                "result": _read_result(self._result(pod.uid)),
            }
        )
        self.record = self.record.with_pod(done)
        if not self.deleting:
            self._follow_up(done)
        self._settle()

    def _follow_up(self, pod: PodRecord) -> None:
        if pod.state is PodState.FAILED and self.record.phase is JobPhase.ACTIVE:
            if self._is_fatal(pod):
                self.record = self.record.model_copy(update={"phase": JobPhase.FAILURE_TARGET})
                self._stop_all()
            else:
                self._add_pod(pod.index)

    def _is_fatal(self, pod: PodRecord) -> bool:
        """As podFailurePolicy and backoffLimitPerIndex say for the Jobs of a cluster (design.md)."""
        if self.record.topology is not Topology.SHARDED or pod.exit_code == StageExit.CONFIGURATION:
            return True
        failed = [other.observed() for other in self.record.pods if other.index == pod.index and other.state is PodState.FAILED]
        return sum(not is_ignored(other) for other in failed) > (self.record.backoff_limit_per_index or 0)

    def _settle(self) -> None:
        """The Job's own condition, when no process is left; then it is on disk before anybody learns of it."""
        if not self._running:
            if self._rendezvous is not None:
                self._rendezvous.close()
            phase = self.record.phase
            if self.deleting:
                self.record = self.record.model_copy(update={"deleted": True})
            elif phase is JobPhase.FAILURE_TARGET:
                self.record = self.record.model_copy(update={"phase": JobPhase.FAILED, "pods": self._started_pods()})
            elif phase is JobPhase.ACTIVE and not self._pending():
                self.record = self.record.model_copy(update={"phase": JobPhase.COMPLETE})
        self._save()

    def _started_pods(self) -> tuple[PodRecord, ...]:
        return tuple(pod for pod in self.record.pods if pod.state is not PodState.PENDING)

    def _pending(self) -> list[PodRecord]:
        return [pod for pod in self.record.pods if pod.state is PodState.PENDING]

    def _add_pod(self, index: int) -> None:
        pod = PodRecord(
            uid=str(uuid.uuid4()),
            index=index,
            state=PodState.PENDING,
            created_at=self._runtime.clock.now(),
            gpus=gpus(self._action, self._runtime.machine),
        )
        self.record = self.record.with_pod(pod)

    def _launch(self, pod: PodRecord) -> None:
        shard = pod.index if self._action.shape.topology is not Topology.SINGLE else None
        scratch, progress = scratch_folder(self._folder, pod.uid), progress_file(self._folder, pod.index)
        with writing(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
            progress.unlink(missing_ok=True)
        environment = stage_environment(
            self._runtime.base_environment,
            self._action,
            index=pod.index,
            pod=pod.uid,
            threads=threads(self._action, self._runtime.machine, self._together),
            port=self._rendezvous.port if self._rendezvous is not None else None,
        )
        environment |= {"RLHF_RESULT": str(self._result(pod.uid)), "RLHF_SCRATCH": str(scratch), "RLHF_PROGRESS": str(progress)}
        environment |= visible(self._leased.pop(pod.uid, ()))
        oom_kills = self._runtime.machine.oom_kills()
        running = pod.model_copy(update={"state": PodState.RUNNING, "started_at": self._runtime.clock.now()})
        self.record = self.record.with_pod(running)
        # Before the process: should the supervisor die between the two, the attempt counts as begun.
        self._save()
        command = self._runtime.command(self._action.config, self._folder / CONFIG_FILE)
        try:
            process: Process = self._runtime.launcher.launch(command, environment, self._logs(shard))
        except OSError as error:
            problem = f"{command[0]} could not be started ({error}). Is it installed, and is there memory and disk?"
            said = StageResult(stage=self._action.config.stage, attempt=self._action.attempt, problem=problem)
            with writing(self._result(pod.uid)):
                self._result(pod.uid).write_text(said.model_dump_json(by_alias=True, exclude_none=True))
            process = _NeverStarted()
        self._running[pod.uid] = _Running(process, oom_kills)
        waiter = threading.Thread(target=self._wait, args=(pod.uid, process), name=f"wait-{process.pid}", daemon=True)
        try:
            waiter.start()
        except RuntimeError:  # A machine that has no thread left: nobody would learn how the process ends.
            process.kill()
            self._wait(pod.uid, process)

    def _wait(self, pod: str, process: Process) -> None:
        """An attempt ends by its Exits alone: there is one whatever happens here."""
        code = _SIGKILLED
        try:
            code = process.wait()
        except OSError:  # No descriptor is left to look with: it counts as killed, and so it is.
            process.kill()
        finally:
            self._runtime.exits.put(Exit(self.record.name, pod, code))
            self._runtime.wake.set()

    def _stop_all(self) -> None:
        grace = self._action.pod.termination_grace_period_seconds
        self._kill_at = self._runtime.clock.now() + (_GRACE if grace is None else timedelta(seconds=grace))
        for uid, running in self._running.items():
            pod = next(pod for pod in self.record.pods if pod.uid == uid)
            self.record = self.record.with_pod(pod.model_copy(update={"state": PodState.TERMINATING}))
            running.process.terminate()
        self._settle()

    def _reason(self, code: int, running: _Running) -> str | None:
        now = self._runtime.machine.oom_kills()
        if code == _SIGKILLED and now is not None and running.oom_kills is not None and now > running.oom_kills:
            return Reason.OOM_KILLED
        return None

    def _save(self) -> None:
        self.record.save(self._folder)
        self._runtime.wake.set()

    def _result(self, pod: str) -> Path:
        return self._folder / f"result-{pod}.json"


class _NeverStarted:
    pid = 0

    def wait(self) -> int:
        return StageExit.APPLICATION

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def _read_result(path: Path) -> StageResult | None:
    try:
        return StageResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def own_environment() -> dict[str, str]:
    """What stages inherit: ours, without what belongs to a stage of which we might be a child ourselves."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_STAGE)}
