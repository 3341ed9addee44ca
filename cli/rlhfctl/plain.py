"""Off a TTY: one line an event, with the time; progress at most twice a minute."""

from __future__ import annotations

from datetime import UTC, datetime

from rlhf_operator.local import LocalEvent, LocalEventKind

from . import progress_line
from .rates import Rate
from .terminal import Terminal

PROGRESS_EVERY_SECONDS = 30.0
_WORD = {
    LocalEventKind.RUN: "run",
    LocalEventKind.STARTED: "started",
    LocalEventKind.PROGRESS: "working",
    LocalEventKind.SUCCEEDED: "done",
    LocalEventKind.ADOPTED: "found",
    LocalEventKind.RETRYING: "retrying",
    LocalEventKind.FAILED: "failed",
    LocalEventKind.GATE: "gate",
    LocalEventKind.WARNING: "warning",
}


class PlainDisplay:
    """A listener for run_local."""

    def __init__(self, out: Terminal) -> None:
        self._out = out
        self._at: tuple[object, ...] = ()
        self._rate = Rate()
        self._printed: datetime | None = None

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, event: LocalEvent) -> None:
        if event.kind == LocalEventKind.PROGRESS:
            self._progress(event)
        else:
            self._out.line(line(event))

    def note(self, text: str) -> None:
        self._out.line(text)

    def _progress(self, event: LocalEvent) -> None:
        if event.progress is None:
            return
        at = (event.iteration, event.stage, event.attempt)
        if at != self._at:
            self._at, self._rate, self._printed = at, Rate(), event.time
        self._rate.add(event.time, event.progress)
        if self._printed is None or (event.time - self._printed).total_seconds() >= PROGRESS_EVERY_SECONDS:
            self._printed = event.time
            self._out.line(f"{_start(event)}: {progress_line.text(event.progress, self._rate)}")


def line(event: LocalEvent) -> str:
    """`2026-03-01T12:00:03Z iteration 1, train, attempt 2 started: …`."""
    return f"{_start(event)}: {event.message}" if event.message else _start(event)


def _start(event: LocalEvent) -> str:
    stamp = event.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    where = [f"iteration {event.iteration}"] if event.iteration else []
    where += [event.stage.value] if event.stage else []
    where += [f"attempt {event.attempt}"] if event.attempt and event.attempt > 1 else []
    return " ".join([stamp, *([", ".join(where)] if where else []), _WORD[event.kind]])
