"""run_local: drive one run to its end on this machine."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.stage import StageConfig
from rlhf_api.words import Phase
from rlhf_operator.clock import SystemClock
from rlhf_operator.core.cursor import stage_at_work, unfinished_stages
from rlhf_operator.local.folder.lock import locked
from rlhf_operator.local.folder.state import LocalState
from rlhf_operator.local.processes.attempt import StageCommand
from rlhf_operator.local.processes.launcher import GuardedLauncher, Launcher
from rlhf_operator.local.processes.machine import Machine, this_machine
from rlhf_operator.local.processes.warm import WarmLauncher
from rlhf_operator.ports import Clock
from rlhf_operator.reconcile import Reconciled, reconcile

from .backend import LocalBackend
from .events import LocalEvent, LocalEventKind, Progress

#: The display is fed this often.
_TICK = 1.0
_WITHOUT_WORK = frozenset({Phase.SUSPENDED, Phase.PAUSED})


def trainer_command(config: StageConfig, file: Path) -> Sequence[str]:
    return [sys.executable, "-m", "rlhf_trainer", config.stage.value, "--config", str(file)]


def run_local(
    run: RLHFRun,
    state: LocalState,
    *,
    cpu: bool,
    listener: Callable[[LocalEvent], None],
    stop: threading.Event,
    command: StageCommand = trainer_command,
    launcher: Launcher | None = None,
    machine: Machine | None = None,
    clock: Clock | None = None,
) -> RLHFRun:
    """Drive the manifest's run until it is finished, paused or suspended, or until `stop` is set; returns it with its status.

    `cpu`: go without the GPUs that the spec asks for. `listener` is called from this thread. Raises RunLocked, RunConflict and
    StateUnusable. However it is left, no process of the run lives on.
    """
    clock = clock or SystemClock()
    name = run.metadata.name
    machine = machine or this_machine()
    warm_log = state.run_folder(name) / "forkserver.log" if cpu or machine.gpus == 0 else None
    with locked(state.lock_file(name), name, clock.now()), _launching(launcher, warm_log) as processes:
        wake = threading.Event()
        backend = LocalBackend(
            state.accept(run, clock.now()),
            state,
            command=command,
            launcher=processes,
            machine=machine,
            clock=clock,
            cpu=cpu,
            listener=listener,
            wake=wake,
        )
        with _waking(stop, wake):
            try:
                return _supervise(backend, state, clock, listener, stop, wake)
            finally:
                backend.close()


def _supervise(
    backend: LocalBackend,
    state: LocalState,
    clock: Clock,
    listener: Callable[[LocalEvent], None],
    stop: threading.Event,
    wake: threading.Event,
) -> RLHFRun:
    shown: Progress | None = None
    while True:
        wake.clear()
        backend.interrupted = stop.is_set()
        reconciled = reconcile(backend, clock)
        if reconciled is None or _settled(backend):
            return backend.run
        progress = state.progress_of(backend.run)
        if progress is not None and progress != shown:
            shown = progress
            listener(_progress_event(backend.run.status, progress, clock.now()))
        wake.wait(_pause(backend, reconciled, clock))


def _settled(backend: LocalBackend) -> bool:
    """Nothing more happens by itself."""
    status = backend.run.status or RLHFRunStatus()
    if status.phase is Phase.PAUSED and any(stage.phase is not Phase.SUSPENDED for _, stage in unfinished_stages(status)):
        return False  # What is beside the chain goes on.
    return (status.phase.finished or status.phase in _WITHOUT_WORK) and not backend.busy


def _pause(backend: LocalBackend, reconciled: Reconciled, clock: Clock) -> float:
    waits = [_TICK]
    if reconciled.requeue_after is not None:
        waits.append(reconciled.requeue_after.total_seconds())
    if (due := backend.kill_overdue()) is not None:
        waits.append((due - clock.now()).total_seconds())
    return max(0.0, min(waits))


def _progress_event(status: RLHFRunStatus | None, progress: Progress, now: datetime) -> LocalEvent:
    current = None if status is None else stage_at_work(status)
    if current is None:
        return LocalEvent(now, LocalEventKind.PROGRESS, progress.detail, progress=progress)
    iteration, stage = current
    return LocalEvent(now, LocalEventKind.PROGRESS, progress.detail, iteration, stage.name, stage.attempt, progress)


@contextmanager
def _launching(launcher: Launcher | None, warm_log: Path | None) -> Iterator[Launcher]:
    """`launcher`, or our own: with stages forked from warm imports where there is a log for it, for no GPU is to be initialised."""
    if launcher is not None:
        yield launcher
        return
    guarded = GuardedLauncher()
    warm = WarmLauncher(guarded, warm_log) if warm_log is not None else None
    try:
        yield warm or guarded
    finally:
        if warm is not None:
            warm.close()
        guarded.close()


@contextmanager
def _waking(stop: threading.Event, wake: threading.Event) -> Iterator[None]:
    """Wake the supervisor when `stop` is set: one thread cannot wait for two events."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if stop.wait(0.1):
                wake.set()
                return

    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
