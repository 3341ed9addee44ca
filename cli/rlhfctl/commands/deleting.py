"""Deleting a run."""

from __future__ import annotations

import sys
import time
from contextlib import closing

import click

from rlhf_api import RLHFRun
from rlhfctl import figures
from rlhfctl.display import terminal
from rlhfctl.errors import Interrupted, TimedOut, UsageProblem
from rlhfctl.sources.cluster.connection import Change
from rlhfctl.sources.cluster.source import ClusterSource, say
from rlhfctl.sources.cluster.streams import Streams
from rlhfctl.sources.source import Source, command_for

from .watching import detaching


def delete(source: Source, name: str, *, sure: bool) -> RLHFRun:
    """Ask where nobody is sure, then delete; returns the run as it was.

    Raises:
        UsageProblem: nobody is there to be asked.
        Interrupted: the answer is no.
        Conflict: a process of this machine drives it.
    """
    run = source.load(name)
    words = source.deletion(run)
    err = terminal.stderr()
    if not sure:
        if not sys.stdin.isatty() or not err.is_tty:
            raise UsageProblem(
                f"nobody is there to say whether run {name!r} is to be deleted",
                hints=(command_for(source, "delete", name, "--yes"),),
            )
        err.wrapped(f"run {name!r} of {source.place}: {words}", "! ", "yellow")
        if not click.confirm("delete it?", err=True):
            raise Interrupted("nothing was deleted")
    done = "is deleted" if source.delete(run) else "is being deleted"
    err.wrapped(f"run {name!r} {done}: {words}", "")
    return run


def wait_until_gone(source: Source, run: RLHFRun, timeout: float | None) -> None:
    """Return when the run and everything that belonged to it is gone; one of this machine is at once.

    Raises:
        TimedOut, Detached: it is still there.
    """
    if not isinstance(source, ClusterSource):
        return
    name, deadline = run.metadata.name, None if timeout is None else time.monotonic() + timeout
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
