"""`rlhfctl approve`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import place_options, run_argument
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place


@click.command("approve")
@run_argument
@click.argument("gate", required=False)
@place_options
@click.option("--iteration", type=click.IntRange(min=1), metavar="N", help="Of this iteration. [default: the one that waits]")
def command(name: str, gate: str | None, place: Place, iteration: int | None) -> None:
    """Let the run NAME go on that GATE paused. Without GATE: the one that waits."""
    from rlhfctl.client import steering
    from rlhfctl.sources.choosing import source_of

    terminal.stderr().line(steering.approve(source_of(place, terminal.say), name, gate, iteration))
