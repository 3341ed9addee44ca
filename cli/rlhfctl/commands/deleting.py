"""Deleting a run."""

from __future__ import annotations

import sys

import click

from rlhfctl.display import terminal
from rlhfctl.errors import Interrupted, UsageProblem
from rlhfctl.sources.source import Source, Target, command_for, target_of

from .watching import detaching


def delete(source: Source, name: str, *, sure: bool) -> Target | None:
    """Ask where nobody is sure, then delete; returns the run as it was where it is not gone yet.

    Raises:
        UsageProblem: nobody is there to be asked.
        Interrupted: the answer is no.
        Conflict: a process of this machine drives it.
    """
    run = target_of(source, name)
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
    gone = source.delete(run)
    err.wrapped(f"run {name!r} {'is deleted' if gone else 'is being deleted'}: {words}", "")
    return None if gone else run


def wait_until_gone(source: Source, run: Target, timeout: float | None) -> None:
    """Return when the run and everything that belonged to it is gone.

    Raises:
        TimedOut, Detached: it is still there.
    """
    name = run.name
    with detaching(command_for(source, "delete", name, "--yes", "--wait")):
        source.wait_until_gone(run, timeout)
    terminal.stderr().line(f"run {name!r} is gone")
