"""`rlhfctl resume`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import Place, place_options, run_argument


@click.command("resume")
@run_argument
@place_options
def command(name: str, place: Place) -> None:
    """Let the run NAME go on that was suspended."""
    from rlhfctl.client import steering
    from rlhfctl.sources.choosing import source_of

    steering.resume(source_of(place), name)
