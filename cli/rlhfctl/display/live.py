"""On a TTY: the run as it is now, redrawn in place."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.text import Text

from rlhf_api import RLHFRun
from rlhf_operator.local import LocalError, LocalEvent, LocalEventKind, LocalState, Progress
from rlhfctl import figures
from rlhfctl.results.iterates import iterates

from . import progress_line, views
from .rates import Rate
from .terminal import Terminal

_LASTING = (LocalEventKind.RETRYING, LocalEventKind.FAILED, LocalEventKind.GATE, LocalEventKind.WARNING)


class LiveDisplay:
    """A listener for run_local; what it shows comes from the status, which is read again at each event."""

    def __init__(self, run: RLHFRun, state: LocalState, out: Terminal) -> None:
        self._run, self._state, self._out = run, state, out
        self._lock = threading.Lock()
        self._notes: list[str] = []
        self._warnings: list[str] = []
        self._at: tuple[object, ...] = ()
        self._progress: Progress | None = None
        self._rate = Rate()
        self._hint, self._stopping = "Ctrl-C stops it after a checkpoint; the same command resumes", False
        self._console = Console(file=out.stream, no_color=not out.colour, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True, get_renderable=self._render)

    def __enter__(self) -> LiveDisplay:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """What the view showed goes with it; what was said of the data stays."""
        self._live.__exit__(None, None, None)
        for warning in self._warnings:
            for line in views.wrap(f"! {warning}", self._out.width):
                self._out.line(self._out.paint(line, "yellow"))

    def __call__(self, event: LocalEvent) -> None:
        with self._lock:
            at = (event.iteration, event.stage, event.attempt)
            if event.kind == LocalEventKind.PROGRESS and event.progress is not None:
                if at != self._at:
                    self._at, self._rate = at, Rate()
                self._rate.add(event.time, event.progress)
                self._progress = event.progress
                return
            self._progress = None
            if event.kind in _LASTING:
                self._notes.append(f"{event.kind.value.lower()}: {event.message}")
            if event.kind is LocalEventKind.WARNING:
                self._warnings.append(self._notes[-1])
            self._reload()

    def note(self, text: str) -> None:
        """What Ctrl-C does now, in place of what it would have done before."""
        with self._lock:
            self._hint, self._stopping = f"! {text}", True

    def _reload(self) -> None:
        try:
            self._run = self._state.load(self._run.metadata.name)
        except LocalError:
            return  # The display must not end the run; the next event reads again.

    def _render(self) -> Text:
        with self._lock:
            lines = frame(self._run, self._progress, self._rate, self._notes, self._out, datetime.now(UTC))
            lines += ["", self._out.paint(self._hint, "yellow" if self._stopping else "dim")]
            return Text.from_ansi("\n".join(fit(lines, self._console.size.height - 1)), no_wrap=True, overflow="ellipsis")


def frame(run: RLHFRun, progress: Progress | None, rate: Rate, notes: list[str], out: Terminal, now: datetime) -> list[str]:
    """The whole picture: where the run is, its stages, the one at work, the iterates so far, what went wrong lately."""
    status = run.status
    if status is None:
        return [f"{out.paint(run.metadata.name, 'bold')}  starting"]
    head = views.headline(run, out)
    if status.start_time is not None:
        head += out.paint(f"  {figures.between(status.start_time, now)}", "dim")
    lines = [head, "", *views.stage_lines(status, out, now)]
    if progress is not None:
        drawn = progress_line.bar(progress, unicode=out.unicode)
        painted = f"{out.paint(drawn, 'blue')}  " if drawn else ""
        lines.append(f"       {painted}{progress_line.text(progress, rate)}")
    if iterates(status):
        lines += ["", *views.iteration_table(run, out)]
    if notes:
        lines += ["", *(out.paint(line, "yellow") for note in notes[-3:] for line in views.wrap(f"! {note}", out.width))]
    return lines


def fit(lines: list[str], height: int) -> list[str]:
    """At most `height` lines: what lies in the middle, the oldest stages, gives way."""
    if len(lines) <= height or height < 8:
        return lines
    gone = len(lines) - height + 1
    return [*lines[:2], f"       … {gone} lines", *lines[2 + gone :]]
