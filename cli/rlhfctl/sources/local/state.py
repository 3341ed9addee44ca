"""The local state folder as the commands use it: the backend's errors become ours, with a hint."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_api import RLHFRun
from rlhf_operator.local import LocalError, LocalState, RunConflict, RunLocked, RunNotFound, StateUnusable
from rlhfctl import figures
from rlhfctl.commands.options import local_folder
from rlhfctl.display import terminal
from rlhfctl.errors import CliError, Conflict, NotFound, hint_for

#: Where `run --local` notes the file that the run was read from, and that it goes without GPUs, for hints that say how to go on.
MANIFEST_ANNOTATION = "rlhf.dev/local-manifest"
CPU_ANNOTATION = "rlhf.dev/local-cpu"


def load(state: LocalState, name: str) -> RLHFRun:
    """The run of this name.

    Raises:
        NotFound: with the nearest name there is.
    """
    with backend_errors(state):
        return state.load(name)


def runs(state: LocalState) -> list[RLHFRun]:
    """One run whose files are damaged hides no other; it is named on stderr."""
    found = []
    for name in state.names():
        try:
            found.append(load(state, name))
        except NotFound:
            continue  # removed since its name was read
        except CliError as error:
            terminal.stderr().line(f"left out: {' '.join(error.what.split())}")
    return found


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
    except StateUnusable as error:
        raise CliError(str(error).rstrip(".")) from error
    except LocalError as error:
        raise CliError(str(error)) from error


def program() -> str:
    """What to type for this program: its path, where its name alone would not find it (`make quickstart` activates nothing)."""
    path = Path(sys.argv[0]).absolute()
    return "rlhfctl" if shutil.which("rlhfctl") or path.name != "rlhfctl" else shown(path)


def holder_words(pid: int) -> str:
    """Who drives a run. A process that has just taken the lock has not told its number yet: 0."""
    return f"process {pid}" if pid else "another process"


def run_command(folder: Path, file: str, *, cpu: bool) -> str:
    """The command that runs a manifest here, or resumes it."""
    return f"{program()} run {flag(folder)}{' --cpu' if cpu else ''} {shlex.quote(file)}"


def resume_command(run: RLHFRun, folder: Path) -> str:
    """The command that was given for this run; FILE stands for a manifest that came on stdin."""
    annotations = run.metadata.annotations or {}
    manifest = annotations.get(MANIFEST_ANNOTATION)
    return run_command(folder, shown(Path(manifest)) if manifest else "FILE", cpu=CPU_ANNOTATION in annotations)


def noted(run: RLHFRun, file: str, *, cpu: bool) -> RLHFRun:
    """With the annotations that `resume_command` reads."""
    notes = {} if file == "-" else {MANIFEST_ANNOTATION: str(Path(file).absolute())}
    if cpu:
        notes[CPU_ANNOTATION] = "true"
    annotations = {**(run.metadata.annotations or {}), **notes} or None
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"annotations": annotations})})


def flag(folder: Path) -> str:
    """`--local` where that alone finds the folder, else `--state DIR`."""
    return "--local" if folder == local_folder(None) else f"--state {shlex.quote(shown(folder))}"


def shown(path: Path) -> str:
    """A path as a person would type it from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
