"""`rlhfctl events`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import Place, cluster_options, run_argument


@click.command("events")
@run_argument
@cluster_options
@click.option("-w", "--watch", is_flag=True, help="Go on as they come, until the run has ended. Ctrl-C detaches.")
def command(name: str, place: Place, watch: bool) -> None:
    """Print the cluster's events of the run NAME and of its Jobs and pods, oldest first.

    With --watch the exit code is the run's, as with wait.
    """
    from rlhfctl.sources.choosing import cluster_of
    from rlhfctl.sources.cluster.events import follow_events, print_events

    (follow_events if watch else print_events)(cluster_of(place), name)
