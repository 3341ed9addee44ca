"""`rlhfctl suspend`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import place_options, run_argument
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place


@click.command("suspend")
@run_argument
@place_options
def command(name: str, place: Place) -> None:
    """Stop the stage of the run NAME after a checkpoint; it stays so until it is resumed."""
    from rlhfctl.client import steering
    from rlhfctl.sources.choosing import source_of

    terminal.stderr().line(steering.suspend(source_of(place, terminal.say), name))
