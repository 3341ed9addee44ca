"""Local runs whose stages are fake: one folder a test, plans for stages, and waiting for what happens."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rlhf_api.resource.run import RLHFRun
from rlhf_api.stage import StageConfig
from rlhf_operator.local import LocalEvent, LocalEventKind, LocalState, run_local
from rlhf_operator.local.processes.machine import Machine
from support.runs import run_of, spec_of

FAKE_STAGE = Path(__file__).with_name("fake_stage.py")
SOURCES = Path(__file__).parents[2]
#: Far beyond what anything here takes; a test that comes to it fails.
PATIENCE = 60.0


def fake_command(config: StageConfig, file: Path) -> Sequence[str]:
    return [sys.executable, str(FAKE_STAGE), config.stage.value, "--config", str(file)]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Until it holds; fails with `what` when patience is at its end."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """It runs: a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class ShiftedClock:
    """The machine's, put on at will; `looks` counts the questions."""

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self.ahead = ahead
        self.looks = 0

    def now(self) -> datetime:
        self.looks += 1
        return datetime.now(UTC) + self.ahead


@dataclass
class LocalWorld:
    """A state folder and the plans of fake stages. `folder` is a test's own."""

    folder: Path
    events: list[LocalEvent] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    oom_kills: int = 0
    cores: int = 4

    def __post_init__(self) -> None:
        (self.folder / "fake" / "plans").mkdir(parents=True, exist_ok=True)
        os.environ["FAKE_STAGE"] = str(self.folder / "fake")
        self.state = LocalState(self.folder / "state")

    def manifest(self, **changes: Any) -> RLHFRun:
        """A run of one iteration; `changes` are fields of its spec."""
        fields = {"iterations": 1, "storage": {"url": self.state.store_url}, "retry": {"backoffSeconds": 0}, **changes}
        run = run_of(spec_of(**fields))
        return run.model_copy(update={"metadata": run.metadata.model_copy(update={"uid": None})})

    def plan(self, stage: str, *plans: str) -> None:
        """What the next starts of `<stage>-<iteration>[-<shard>]` do."""
        (self.folder / "fake" / "plans" / stage).write_text("".join(f"{plan}\n" for plan in plans))

    def run(self, run: RLHFRun | None = None, **options: Any) -> RLHFRun:
        machine = Machine(self.cores, gpus=0, memory=lambda: 2**40, oom_kills=lambda: self.oom_kills)
        return run_local(
            run or self.manifest(),
            self.state,
            cpu=options.pop("cpu", True),
            listener=self.events.append,
            stop=self.stop,
            command=options.pop("command", fake_command),
            machine=options.pop("machine", machine),
            **options,
        )

    def in_background(self, run: RLHFRun | None = None, **options: Any) -> Background:
        return Background(lambda: self.run(run, **options))

    def notes(self, name: str) -> list[str]:
        path = self.folder / "fake" / name
        return path.read_text().splitlines() if path.exists() else []

    def starts(self) -> list[str]:
        """`<stage>-<iteration>` of every process that started, in order; a look-up has `resolve:` before it."""
        return [line.split()[0] for line in self.notes("starts")]

    def hanging(self) -> int:
        """The process of a stage that hangs as planned, once it does."""
        wait_until(lambda: bool(self.notes("hanging")), "a stage that hangs")
        return int(self.notes("hanging")[-1])

    def kinds(self) -> list[LocalEventKind]:
        return [event.kind for event in self.events]


class Background:
    """A call on a thread, with its result or exception for the test."""

    def __init__(self, call: Callable[[], RLHFRun]) -> None:
        self._call = call
        self._outcome: RLHFRun | BaseException | None = None
        # A test that fails must not wait for it: with the last thread that matters go the guards, and with them every process.
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def ended_within(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> RLHFRun:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"the run did not end; its thread is here:\n{self._stack()}"
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else "it has just ended"

    def _work(self) -> None:
        try:
            self._outcome = self._call()
        except BaseException as error:
            self._outcome = error
