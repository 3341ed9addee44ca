"""`rlhfctl resume`."""

from __future__ import annotations

import click

from rlhfctl.options import Place, place_options, run_argument


@click.command("resume")
@run_argument
@place_options
def command(name: str, place: Place) -> None:
    """Let the run NAME go on that was suspended."""
    from rlhfctl import steering
    from rlhfctl.places import source_of

    steering.resume(source_of(place), name)
