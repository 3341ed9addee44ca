"""Deleting a run from a cluster."""

from __future__ import annotations

import sys
import time
from contextlib import closing

import click

from rlhf_api import RLHFRun

from . import figures, terminal
from .cluster import Change
from .cluster_source import ClusterSource, say
from .errors import Interrupted, NotFound, TimedOut, UsageProblem
from .source import command_for
from .streams import Streams
from .watching import detaching, phase_of


def delete(source: ClusterSource, name: str, *, sure: bool) -> None:
    """Ask where nobody is sure, then delete.

    Raises:
        UsageProblem: nobody is there to be asked.
        Interrupted: the answer is no.
    """
    run = source.load(name)
    err = terminal.stderr()
    if not sure:
        if not sys.stdin.isatty() or not err.is_tty:
            raise UsageProblem(
                f"nobody is there to say whether run {name!r} is to be deleted",
                hints=(command_for(source, "delete", name, "--yes"),),
            )
        at_work = "" if phase_of(run).finished else f", which is {phase_of(run).value} and would be stopped"
        err.wrapped(f"run {name!r} of {source.place}{at_work}; {_what_stays(run)}", "! ", "yellow")
        if not click.confirm("delete it?", err=True):
            raise Interrupted("nothing was deleted")
    source.connection.delete_run(run)
    done = "is being deleted" if not phase_of(run).finished else "is deleted"
    err.wrapped(f"run {name!r} {done}; {_what_stays(run)}", "")


def wait_until_gone(source: ClusterSource, name: str, timeout: float | None) -> None:
    """Return when the run and everything that belonged to it is gone.

    Raises:
        TimedOut, Detached: it is still there.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        run = source.load(name)
    except NotFound:
        return
    streams: Streams[Change[RLHFRun]] = Streams()
    with detaching(command_for(source, "delete", name, "--yes", "--wait")), closing(streams):
        streams.add(source.connection.run_changes(run, say))
        for change in streams.until(deadline):
            if change.gone or change.object.metadata.uid != run.metadata.uid:
                terminal.stderr().line(f"run {name!r} is gone")
                return
    pods = len(source.connection.pods(run))
    raise TimedOut(
        f"run {name!r} is still being deleted after {figures.duration(timeout or 0)}",
        why=f"{figures.plural(pods, 'pod')} of it still there: a stage may write a checkpoint" if pods else "",
    )


def _what_stays(run: RLHFRun) -> str:
    return f"its artifacts stay in {run.spec.storage.url}"
