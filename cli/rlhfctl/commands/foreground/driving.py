"""`run --local`, after the manifest was read: drive the run, show it, stop it when asked, and say how it ended."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from rlhf_api import RLHFRun
from rlhf_api.conventions.file_urls import file_path
from rlhf_api.metrics import Metric
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase, Reason
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.local import LocalEvent, LocalState, run_local
from rlhfctl import figures
from rlhfctl.commands.watching import mirror
from rlhfctl.display import terminal, views
from rlhfctl.display.live import LiveDisplay
from rlhfctl.display.plain import PlainDisplay
from rlhfctl.display.terminal import Terminal
from rlhfctl.errors import Interrupted, RunFailed
from rlhfctl.exits import Exit
from rlhfctl.results.iterates import iterates
from rlhfctl.sources.local.source import LocalSource
from rlhfctl.sources.local.state import backend_errors
from rlhfctl.sources.place import flag, shown
from rlhfctl.sources.source import phase_of

TAIL_LINES = 20


def drive(run: RLHFRun, state: LocalState, *, cpu: bool, again: str) -> RLHFRun:
    """Drive the run until it has succeeded. `again` is the command that resumes it.

    Raises:
        Conflict: another process drives it, or the manifest changes what cannot change.
        RunFailed: with the end of the failing stage's log on stderr.
        Interrupted: SIGINT, SIGTERM or SIGHUP stopped it.
        CliError: it is paused or suspended.
    """
    err = terminal.stderr()
    stop = threading.Event()
    display = LiveDisplay(run, state, err) if err.is_tty else PlainDisplay(err)
    with backend_errors(state), display, stopping(stop, display.note):
        ended = _in_thread(run, state, cpu, display, stop)
    phase = phase_of(ended)
    if err.is_tty and not (phase.finished and phase == Phase.SUCCEEDED):
        _print_all(ended, err)
    if stop.is_set() and not phase.finished:
        raise Interrupted(f"run {run.metadata.name!r} is stopped; nothing is lost", hints=(f"{again}   resumes it",))
    if phase == Phase.FAILED:
        _fail(ended, state, again)
    mirror(ended, LocalSource(state))
    return ended


@contextmanager
def stopping(stop: threading.Event, note: Callable[[str], None]) -> Iterator[None]:
    """SIGINT, SIGTERM, SIGHUP: the first stops the stages in good order, the second ends this process, and the stages with it."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            _die()
        stop.set()
        note("stopping: the stage writes a checkpoint; Ctrl-C again kills it")

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, on_signal) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _die() -> None:
    """End at once; the kernel kills the stages when their supervisor is gone. The live view has hidden the cursor: show it."""
    show_cursor = b"\x1b[?25h" if os.isatty(2) else b""
    os.write(2, show_cursor + b"\nkilled; the same command resumes\n")
    os._exit(Exit.INTERRUPTED)


def summary(run: RLHFRun, state: LocalState, report: Path | None, out: Terminal) -> list[str]:
    """What came out, where it lies, what to do next."""
    status = run.status or RLHFRunStatus()
    name = run.metadata.name
    took = figures.between(status.start_time, status.completion_time)
    lines = [f"{out.paint('✓', 'green')} {out.paint(name, 'bold')} has succeeded in {took}", ""]
    lines += [*views.iteration_table(run, out), ""]
    rows = []
    if status.best_iteration is not None:
        rows.append(("best iterate", _best_words(status, status.best_iteration)))
    if status.checkpoint is not None:
        rows.append(("checkpoint", _path(status.checkpoint.url)))
    if report is not None:
        rows.append(("report", shown(report)))
    rows.append(("logs", shown(state.run_folder(name) / "logs")))
    rows.append(("next", f"open the report; rlhfctl status {name} {flag(state.folder)} -o wide"))
    return lines + [f"{label:<14}{value}" for label, value in rows]


def _in_thread(
    run: RLHFRun, state: LocalState, cpu: bool, listener: Callable[[LocalEvent], None], stop: threading.Event
) -> RLHFRun:
    """run_local in a thread of its own: signal handlers run in the main thread, and must never wait for a lock that it holds."""
    ended: list[RLHFRun] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            ended.append(run_local(run, state, cpu=cpu, listener=listener, stop=stop))
        except BaseException as problem:  # carried to the main thread, and raised there
            problems.append(problem)

    thread = threading.Thread(target=work, name="supervisor")
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.2)
    if problems:
        raise problems[0]
    return ended[0]


def _fail(run: RLHFRun, state: LocalState, again: str) -> None:
    status = run.status or RLHFRunStatus()
    name = run.metadata.name
    log = failing_log(run, state)
    hints = [again + "   tries again; finished stages are kept"]
    why = status.message
    if log is not None:
        text = log.read_text(errors="replace")
        refusal = _refusal(text)
        if refusal is None:
            err = terminal.stderr()
            err.line(f"the end of {shown(log)}:")
            for line in text.splitlines()[-TAIL_LINES:]:
                err.line(f"  | {line}")
        else:
            why = refusal
        hints.insert(0, f"rlhfctl logs {name} {flag(state.folder)}   has the whole log")
    raise RunFailed(f"run {name!r} has failed", why=why, hints=tuple(hints))


def _refusal(log: str) -> str | None:
    """What a stage says of the manifest, whole: a status has room for two thousand characters of it."""
    *_, last = re.split(rf"^.* ERROR (?=\S+ failed \({Reason.CONFIGURATION_ERROR}\): )", log, flags=re.MULTILINE)
    return None if last == log else last.strip()


def failing_log(run: RLHFRun, state: LocalState) -> Path | None:
    """Of the stage that failed for good: of its process that failed first, for what the others write then is only that they were
    stopped; the newest where that is not known.
    """
    status = run.status or RLHFRunStatus()
    failed = next(((number, stage) for number, stage in stages_of(status) if stage.phase is Phase.FAILED), None)
    if failed is None:
        return None
    name = run.metadata.name
    number, stage = failed
    shard = state.first_failure(name, number, stage.name, stage.attempt)
    first = None if shard is None else state.log_file(name, number, stage.name, stage.attempt, shard)
    if first is not None and first.exists():
        return first
    logs = state.log_files(name, iteration=number or 0, stage=stage.name, attempt=stage.attempt)
    return logs[-1] if logs else None


def _print_all(run: RLHFRun, out: Terminal) -> None:
    for line in views.run_lines(run, out, datetime.now(UTC)):
        out.line(line)


def _best_words(status: RLHFRunStatus, best: int) -> str:
    if best == 0:
        return "π0: no iteration improved on it"
    win = dict(iterates(status)).get(best, {}).get(Metric.WIN_RATE_VS_INITIAL)
    return f"π{best}" if win is None else f"π{best}, win rate against π0 {figures.with_interval(win)}"


def _path(url: str) -> str:
    return shown(file_path(url)) if url.startswith("file:") else url
