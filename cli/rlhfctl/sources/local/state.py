"""The local state folder as the commands use it: the backend's errors become ours, with a hint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rlhf_api import RLHFRun
from rlhf_api.reading.unknown import in_words
from rlhf_operator.local import LocalError, LocalState, RunConflict, RunLocked, RunNotFound, StateUnusable, UnknownWords
from rlhfctl import figures
from rlhfctl.errors import CliError, Conflict, NotFound, OtherVersion, hint_for
from rlhfctl.sources.place import flag, shown


def load(state: LocalState, name: str) -> RLHFRun:
    """The run of this name.

    Raises:
        NotFound: with the nearest name there is.
    """
    with backend_errors(state):
        return state.load(name)


@contextmanager
def backend_errors(state: LocalState) -> Iterator[None]:
    """Give the backend's errors their exit codes."""
    try:
        yield
    except RunNotFound as error:
        known = f"it has {', '.join(error.known)}" if error.known else "it has no runs"
        hint = hint_for(error.name, error.known) or (
            (f"rlhfctl list {flag(state.folder)}",) if error.known else ("rlhfctl quickstart",)
        )
        raise NotFound(f"there is no run {error.name!r} in {shown(state.folder)}", why=known, hints=hint) from error
    except RunLocked as error:
        raise Conflict(
            f"run {error.name!r} is driven by {holder_words(error.pid)} on {error.host}, since {figures.clock(error.since)}",
            why="one process drives a run; a second one would do the same work twice",
            hints=(
                f"rlhfctl status {error.name} {flag(state.folder)} --watch",
                f"stop it with Ctrl-C there{f', or kill -TERM {error.pid}' if error.pid else ''}, then run this again",
            ),
        ) from error
    except RunConflict as error:
        raise Conflict.of_fields(error.name, error.fields) from error
    except UnknownWords as error:
        raise OtherVersion(
            f"run {error.name!r} in {shown(state.folder)} was written by another version",
            why=f"{in_words(error.found)}; it is left as it is",
            hints=("go on with the version of rlhfctl that wrote it, or a newer one",),
            raw=error.stored,
        ) from error
    except StateUnusable as error:
        raise CliError(str(error).rstrip(".")) from error
    except LocalError as error:
        raise CliError(str(error)) from error


def holder_words(pid: int) -> str:
    """Who drives a run. A process that has just taken the lock has not told its number yet: 0."""
    return f"process {pid}" if pid else "another process"
