"""`rlhfctl cancel`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import place_options, run_argument
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place


@click.command("cancel")
@run_argument
@place_options
def command(name: str, place: Place) -> None:
    """End the run NAME for good: its stage is stopped, its artifacts stay."""
    from rlhfctl.client import steering
    from rlhfctl.sources.choosing import source_of

    terminal.stderr().line(steering.cancel(source_of(place, terminal.say), name))
