"""`rlhfctl resume`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import place_options, run_argument
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place


@click.command("resume")
@run_argument
@place_options
def command(name: str, place: Place) -> None:
    """Let the run NAME go on that was suspended."""
    from rlhfctl.client import steering
    from rlhfctl.sources.choosing import source_of

    terminal.stderr().line(steering.resume(source_of(place, terminal.say), name))
