"""Looking at a run again and again until something is so. Ctrl-C here only detaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rlhf_api import RLHFRun
from rlhf_api.status import RLHFRunStatus
from rlhf_api.words import Phase
from rlhf_operator.local import LocalState

from .errors import CliError, Detached, RunFailed
from .local import flag, run_command

EVERY_SECONDS = 0.5


@contextmanager
def detaching(come_back: str) -> Iterator[None]:
    """Ctrl-C leaves the run alone and says how to come back."""
    try:
        yield
    except KeyboardInterrupt:
        raise Detached("detached: the run is left as it is", hints=(come_back,)) from None


def until(done: Callable[[], bool], timeout: float | None) -> bool:
    """Wait until `done`; False when `timeout` seconds have passed before."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while not done():
        if deadline is not None and time.monotonic() >= deadline:
            return False
        time.sleep(EVERY_SECONDS)
    return True


def changes(look: Callable[[], object], run: RLHFRun, state: LocalState) -> Callable[[], bool]:
    """True once `look` gives something else than now, or the run rests."""
    before = look()
    return lambda: look() != before or at_rest(run, state)


def at_rest(run: RLHFRun, state: LocalState) -> bool:
    """Nothing more happens by itself: it has ended, or no process drives it."""
    return phase_of(run).finished or state.holder(run.metadata.name) is None


def mirror(run: RLHFRun, state: LocalState) -> None:
    """Return when the run succeeded; raise what says how it stands otherwise.

    Raises:
        RunFailed: it failed, or was cancelled.
        CliError: it waits for somebody.
    """
    name, phase = run.metadata.name, phase_of(run)
    where = flag(state.folder)
    message = (run.status or RLHFRunStatus()).message
    if phase == Phase.SUCCEEDED:
        return
    if phase in (Phase.FAILED, Phase.CANCELLED):
        ended = "has failed" if phase == Phase.FAILED else "was cancelled"
        raise RunFailed(f"run {name!r} {ended}", why=message, hints=(f"rlhfctl logs {name} {where}",))
    if phase == Phase.PAUSED:
        hints = (f"rlhfctl approve {name} {where}", f"then {run_command(run, state.folder)}")
        raise CliError(f"run {name!r} is paused and waits for an approval", why=message, hints=hints)
    if phase == Phase.SUSPENDED and run.spec.suspend:
        raise CliError(f"run {name!r} is suspended", why=message, hints=(f"rlhfctl resume {name} {where}",))
    raise CliError(
        f"run {name!r} has not ended, and no process drives it",
        why=f"it was stopped in phase {phase.value}",
        hints=(f"{run_command(run, state.folder)}   resumes it",),
    )


def phase_of(run: RLHFRun) -> Phase:
    return (run.status or RLHFRunStatus()).phase
