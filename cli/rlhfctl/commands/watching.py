"""Following a run until it rests, and saying how it stands then. Ctrl-C here only detaches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from rlhf_api import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase
from rlhfctl import figures
from rlhfctl.display import terminal
from rlhfctl.errors import CliError, Detached, NotFound, RunFailed, TimedOut
from rlhfctl.sources.source import LogNote, LogSelection, Source, answers_of_people, command_for, phase_of, waits_for_people


def wait(source: Source, name: str, timeout: float | None) -> None:
    """Return when the run has succeeded.

    Raises:
        TimedOut, Detached: it goes on.
        RunFailed, CliError: as `mirror` does.
    """
    with detaching(command_for(source, "wait", name)):
        last = deque(source.watch(name, timeout), maxlen=1).pop()
    if not last.rests:
        raise TimedOut(
            f"run {name!r} is still {phase_of(last.run).value} after {figures.duration(timeout or 0)}",
            hints=(command_for(source, "status", name),),
        )
    mirror(last.run, source)
    terminal.stderr().line(f"run {name!r} has succeeded")


def follow_logs(source: Source, name: str, wanted: LogSelection) -> None:
    """Print the logs as they are written, from stage to stage, until the run rests; then mirror how it stands."""
    with detaching(command_for(source, "logs", name, "--follow")):
        print_logs(source, name, wanted, follow=True)
    mirror(source.load(name), source)


def print_logs(source: Source, name: str, wanted: LogSelection, *, follow: bool) -> None:
    """The logs on stdout; headings and what else is to be said of them on stderr.

    Raises:
        NotFound: without `follow`, when there is no such log.
    """
    out, err = terminal.stdout(), terminal.stderr()
    heading, found = "", False
    for piece in source.logs(name, wanted, follow=follow):
        if isinstance(piece, LogNote):
            err.wrapped(piece.text, "! ", "yellow")
            continue
        found = True
        if piece.text:
            if piece.heading != heading:
                err.line(err.paint(f"==> {piece.heading} <==", "bold"))
            heading = piece.heading
            out.write(piece.text)
    if not found and not follow:
        there = ", ".join(source.log_names(name))
        hint = command_for(source, "logs" if there else "status", name)
        why = f"it has {there}" if there else "no stage has started, or no log of it is left"
        raise NotFound(f"run {name!r} has no such log", why=why, hints=(hint,))


@contextmanager
def detaching(come_back: str) -> Iterator[None]:
    """Ctrl-C leaves the run alone and says how to come back."""
    try:
        yield
    except KeyboardInterrupt:
        raise Detached("detached: the run is left as it is", hints=(come_back,)) from None


def mirror(run: RLHFRun, source: Source) -> None:
    """Return when the run succeeded; raise what says how it stands otherwise.

    Raises:
        RunFailed: it failed, or was cancelled.
        CliError: it waits for somebody.
    """
    name, phase, again = run.metadata.name, phase_of(run), source.run_again(run)
    status = run.status or RLHFRunStatus()
    message = status.message
    if phase == Phase.SUCCEEDED:
        return
    if phase in (Phase.FAILED, Phase.CANCELLED):
        ended = "has failed" if phase == Phase.FAILED else "was cancelled"
        raise RunFailed(f"run {name!r} {ended}", why=message, hints=(command_for(source, "logs", name),))
    if commands := answers_of_people(source, run):
        hints = (*commands, *((f"then {again}",) if again else ()))
        raise CliError(f"run {name!r} is paused and waits for people's answers", why=message, hints=hints)
    if phase == Phase.PAUSED and not waits_for_people(run):
        hints = (command_for(source, "approve", name), *((f"then {again}",) if again else ()))
        raise CliError(f"run {name!r} is paused and waits for an approval", why=message, hints=hints)
    if phase == Phase.SUSPENDED and run.spec.suspend:
        raise CliError(f"run {name!r} is suspended", why=message, hints=(command_for(source, "resume", name),))
    raise CliError(
        f"run {name!r} has not ended, and no process drives it",
        why=f"it was stopped in phase {phase.value}",
        hints=(f"{again}   resumes it",),
    )
