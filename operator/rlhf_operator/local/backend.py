"""The local backend: attempts as process groups, their records in the state folder. The one supervisor of a run owns it."""

from __future__ import annotations

import json
import queue
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Reason
from rlhf_operator.core.actions import Action, CreateConfigMap, CreateJob, DeleteJob, EmitEvent, RemoveChildren
from rlhf_operator.core.observed import Environment, Hindrance, Job, JobPhase, Observed, PodState
from rlhf_operator.local.folder.files import write_atomically
from rlhf_operator.local.folder.records import AttemptRecord, read_records, remove_scratch
from rlhf_operator.local.folder.state import LocalState
from rlhf_operator.local.processes.attempt import CONFIG_FILE, Exit, LiveAttempt, Runtime, StageCommand, own_environment
from rlhf_operator.local.processes.guard import kill_marked
from rlhf_operator.local.processes.launcher import MARKER, Launcher
from rlhf_operator.local.processes.leases import Devices
from rlhf_operator.local.processes.machine import Machine
from rlhf_operator.ports import Clock, Seen

from .errors import LocalError, UnknownWords, writing
from .events import LocalEvent, LocalEventKind


class LocalBackend:
    """Every observation is live: there is no index that could lag behind. Call it from one thread, with the run's lock held."""

    def __init__(
        self,
        run: RLHFRun,
        state: LocalState,
        *,
        command: StageCommand,
        launcher: Launcher,
        machine: Machine,
        clock: Clock,
        cpu: bool,
        listener: Callable[[LocalEvent], None],
        wake: threading.Event,
    ) -> None:
        self.interrupted = False
        self._run = run
        self._state = state
        self._cpu = cpu
        self._listener = listener
        self._clock = clock
        self._version = 0
        # Not that of now: between `accept` and here somebody may have changed the manifest.
        self._manifest_stamp = (0, 0)
        self._exits: queue.SimpleQueue[Exit] = queue.SimpleQueue()
        environment = own_environment()
        devices = Devices(machine, environment)
        self._runtime = Runtime(command, launcher, machine, clock, self._exits, wake, environment, devices)
        self._attempts: dict[str, LiveAttempt] = {}
        self._records = self._recover()

    # --- the port ---

    def observe(self, *, live: bool) -> Seen | None:  # noqa: ARG002 - it always is
        self._collect()
        self._reread_manifest()
        metadata = self._run.metadata.model_copy(update={"resource_version": str(self._version)})
        observed = Observed(
            jobs=tuple(self._jobs()),
            live=True,
            children=bool(self._records),
            interrupted=self.interrupted,
            environment=Environment(allow_cpu=self._cpu),
        )
        return Seen(self._run.model_copy(update={"metadata": metadata}), observed)

    def write_status(self, seen: Seen, status: RLHFRunStatus) -> bool:
        if seen.run.metadata.resource_version != str(self._version):
            return False
        self._state.save_status(self._run.metadata.name, status)
        self._run = self._run.model_copy(update={"status": status})
        self._version += 1
        return True

    def apply(self, run: RLHFRun, action: Action) -> bool:
        match action:
            case CreateConfigMap():
                self._write_config(action)
            case CreateJob():
                return self._create(run, action)
            case DeleteJob():
                self._delete(action)
            case RemoveChildren():
                self._remove_children()
            case EmitEvent():
                self._listener(_told(action, self._clock.now()))
            case _:
                pass  # A Service and a NetworkPolicy have no counterpart on one machine.
        return True

    # --- for the supervisor ---

    @property
    def run(self) -> RLHFRun:
        return self._run

    @property
    def busy(self) -> bool:
        """Some process of the run lives."""
        return any(attempt.busy for attempt in self._attempts.values())

    def kill_overdue(self) -> datetime | None:
        """SIGKILL what had its grace; when the next is due."""
        now = self._clock.now()
        for attempt in self._attempts.values():
            attempt.kill_overdue(now)
        due = [attempt.kill_at for attempt in self._attempts.values() if attempt.kill_at is not None]
        return min(due, default=None)

    def close(self) -> None:
        """Kill whatever still runs, and wait until it is gone. What it came to is for the next supervisor to find out."""
        for attempt in self._attempts.values():
            attempt.kill()
        while self.busy:
            ended = self._exits.get()
            self._attempts[ended.attempt].forget(ended)

    # --- attempts ---

    def _jobs(self) -> list[Job]:
        jobs = []
        for name, record in self._records.items():
            attempt = self._attempts.get(name)
            if attempt is not None:
                record = self._records[name] = attempt.record
            if record.deleted:
                continue
            job = record.observed(deleting=attempt is not None and attempt.deleting)
            if attempt is not None and (missing := attempt.waits_for) is not None:
                hindrance = Hindrance(Reason.WAITING_FOR_QUOTA, missing)
                job = replace(job, phase=JobPhase.SUSPENDED, admitted_at=None, hindrance=hindrance)
            jobs.append(job)
        return jobs

    def _recover(self) -> dict[str, AttemptRecord]:
        """Attempts of former supervisors. None of their processes lives on; what such a process came to is not known."""
        records = {}
        for folder, record in read_records(self._state.run_folder(self._run.metadata.name) / "attempts").items():
            if record.run_uid != self._run.metadata.uid:
                continue
            if not record.phase.ended and not record.deleted:
                last_sign = self._last_sign(folder, record)
                for pod in record.live:
                    kill_marked(f"{MARKER}={pod.uid}")
                    remove_scratch(folder, pod.uid)
                    ended = max(last_sign, pod.started_at or last_sign)
                    record = record.with_pod(pod.model_copy(update={"state": PodState.FAILED, "finished_at": ended}))
                started = tuple(pod for pod in record.pods if pod.state is not PodState.PENDING)
                record = record.model_copy(update={"phase": JobPhase.FAILED, "pods": started})
                record.save(folder)
            records[record.name] = record
        return records

    def _last_sign(self, folder: Path, record: AttemptRecord) -> datetime:
        """When the attempt last wrote something. The time since then is not known to be its work: nobody may have been there."""
        name = self._run.metadata.name
        logs = self._state.log_files(name, iteration=record.iteration or 0, stage=record.stage, attempt=record.attempt)
        written = max(path.stat().st_mtime for path in [*folder.iterdir(), *logs])
        return min(self._clock.now(), datetime.fromtimestamp(written, UTC))

    def _write_config(self, action: CreateConfigMap) -> None:
        target = getattr(action.config.work, "target", action.config.stage)
        config = action.config
        folder = self._state.attempt_folder(config.run.name, config.iteration, target, config.execution.attempt)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # JSON is YAML, and is read ten times faster.
            write_atomically(folder / CONFIG_FILE, json.dumps(config.to_wire(), indent=2).encode())

    def _create(self, run: RLHFRun, action: CreateJob) -> bool:
        known = self._records.get(action.name)
        if known is not None:
            return not known.deleted and not (action.name in self._attempts and self._attempts[action.name].deleting)
        name = run.metadata.name
        record = AttemptRecord(
            name=action.name,
            uid=str(uuid.uuid4()),
            run_uid=run.metadata.uid or "",
            iteration=action.iteration,
            stage=action.stage,
            attempt=action.attempt,
            resolving=action.resolving,
            created_at=self._clock.now(),
            topology=action.shape.topology,
            completions=action.shape.completions,
            backoff_limit_per_index=action.shape.backoff_limit_per_index,
            infrastructure_base=action.infrastructure_base,
            application_base=action.application_base,
        )
        folder = self._state.attempt_folder(name, action.iteration, action.stage, action.attempt)

        def logs(shard: int | None) -> Path:
            return self._state.log_file(name, action.iteration, action.stage, action.attempt, shard)

        attempt = LiveAttempt(record, action, folder, logs, self._runtime)
        try:
            attempt.start()
        finally:
            self._attempts[action.name] = attempt
            self._records[action.name] = attempt.record
        self._fill()
        return True

    def _fill(self) -> None:
        """Start what there are devices for, in the order in which it was made: what wants many is not starved by what wants few."""
        in_line = False
        for name, attempt in self._attempts.items():
            if in_line and attempt.needs_devices:
                continue
            attempt.fill()
            self._records[name] = attempt.record
            in_line = in_line or attempt.wants_more

    def _delete(self, action: DeleteJob) -> None:
        record = self._records.get(action.name)
        if record is None or record.uid != action.uid:
            return
        attempt = self._attempts.get(action.name)
        if attempt is not None:
            attempt.delete()
        else:
            self._records[action.name] = record.model_copy(update={"deleted": True})
            folder = self._state.attempt_folder(self._run.metadata.name, record.iteration, record.stage, record.attempt)
            self._records[action.name].save(folder)

    def _remove_children(self) -> None:
        self._attempts.clear()
        self._records.clear()
        shutil.rmtree(self._state.run_folder(self._run.metadata.name) / "attempts", ignore_errors=True)

    def _collect(self) -> None:
        while True:
            try:
                self._on_exit(self._exits.get_nowait())
            except queue.Empty:
                break
        self._fill()

    def _on_exit(self, ended: Exit) -> None:
        attempt = self._attempts[ended.attempt]
        attempt.on_exit(ended)
        self._records[ended.attempt] = attempt.record

    # --- the manifest, which others may change while we hold the lock: approvals, suspend, cancel, iterations ---

    def _reread_manifest(self) -> None:
        stamp = self._stamp()
        if stamp == self._manifest_stamp:
            return
        self._manifest_stamp = stamp
        try:
            changed = self._state.load(self._run.metadata.name)
        except UnknownWords as error:
            words = f"{error} It goes on by the manifest that it had."
            self._listener(LocalEvent(self._clock.now(), LocalEventKind.WARNING, words))
            return
        except LocalError:
            return
        if changed.metadata.uid == self._run.metadata.uid:
            self._run = self._run.model_copy(update={"spec": changed.spec, "metadata": changed.metadata})
            self._version += 1

    def _stamp(self) -> tuple[int, int]:
        """Time and inode of run.yaml, which is replaced as a whole: the time alone may be equal for two changes of one moment."""
        try:
            found = (self._state.run_folder(self._run.metadata.name) / "run.yaml").stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino


def _told(action: EmitEvent, now: datetime) -> LocalEvent:
    return LocalEvent(now, LocalEventKind(action.kind.value), action.message, action.iteration, action.stage, action.attempt)
