"""`rlhfctl events`."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import click

from rlhfctl.commands.options import cluster_options, run_argument
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place

if TYPE_CHECKING:
    from rlhfctl.sources.cluster.source import ClusterSource


@click.command("events")
@run_argument
@cluster_options
@click.option("-w", "--watch", is_flag=True, help="Go on as they come, until the run has ended. Ctrl-C detaches.")
def command(name: str, place: Place, watch: bool) -> None:
    """Print the cluster's events of the run NAME and of its Jobs and pods, oldest first.

    With --watch the exit code is the run's, as with wait.
    """
    from rlhfctl.sources.choosing import cluster_of

    (_follow if watch else _print)(cluster_of(place, terminal.say), name)


def _print(source: ClusterSource, name: str) -> None:
    """Those that the cluster still has; it forgets them after an hour."""
    from rlhfctl.display.events import print_event

    found, out = source.events(source.load(name)), terminal.stdout()
    for event in found:
        print_event(event, out)
    if not found:
        terminal.stderr().line(f"the cluster has no events of run {name!r}; it keeps them for about an hour")


def _follow(source: ClusterSource, name: str) -> None:
    """The same, then what comes, until the run has ended; then mirror how it ended."""
    from rlhfctl.commands.watching import detaching, mirror
    from rlhfctl.display.events import print_event
    from rlhfctl.sources.source import command_for

    run, out = source.load(name), terminal.stdout()
    with detaching(command_for(source, "events", name, "--watch")):
        seen: dict[str, int] = {}
        for event in chain(source.events(run), source.event_changes(run)):
            if seen.get(event.uid) != event.count:
                seen[event.uid] = event.count
                print_event(event, out)
    mirror(source.load(name), source)
