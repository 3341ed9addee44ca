"""Off a TTY: one line an event, with the time; progress at most twice a minute."""

from __future__ import annotations

from datetime import datetime

from rlhf_operator.local import LocalEvent, LocalEventKind
from rlhfctl import figures

from . import progress_line
from .rates import Rate
from .terminal import Terminal

PROGRESS_EVERY_SECONDS = 30.0


class PlainDisplay:
    """A listener for run_local."""

    def __init__(self, out: Terminal) -> None:
        self._out = out
        self._at: tuple[object, ...] = ()
        self._rate = Rate()
        self._printed: datetime | None = None
        self._started: dict[tuple[object, ...], datetime] = {}

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, event: LocalEvent) -> None:
        if event.kind == LocalEventKind.PROGRESS:
            self._progress(event)
            return
        at = (event.iteration, event.stage)
        if event.kind == LocalEventKind.STARTED:
            self._started.setdefault(at, event.time)
        took = ""
        if event.kind == LocalEventKind.SUCCEEDED and at in self._started:
            took = f" It took {figures.duration((event.time - self._started[at]).total_seconds())}."
        # A refusal of a manifest has many lines; they follow at the end.
        said = event.message.splitlines()[0] if event.kind == LocalEventKind.FAILED and event.message else event.message
        self._out.line(f"{figures.stamp(event.time)} {_MARK.get(event.kind, '')}{said}{took}")

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
            self._out.line(f"{figures.stamp(event.time)} {place(event)}: {progress_line.text(event.progress, self._rate)}")


def place(event: LocalEvent) -> str:
    """`train of iteration 2`."""
    stage = event.stage.value if event.stage else "run"
    return f"{stage} of iteration {event.iteration}" if event.iteration else stage


_MARK = {LocalEventKind.WARNING: "warning: ", LocalEventKind.GATE: "gate: "}
