"""`rlhfctl wait`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import place_options, run_argument, timeout_option
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place


@click.command("wait")
@run_argument
@place_options
@timeout_option
def command(name: str, place: Place, timeout: float | None) -> None:
    """Wait until the run NAME has ended; exit as it did.

    0: it succeeded; 1: it failed, was cancelled, or is local and rests without having ended; 100: timeout; 101: Ctrl-C, the
    run goes on. In a cluster a run that is paused or suspended is waited for: somebody may let it go on.
    """
    from rlhfctl.commands.watching import wait
    from rlhfctl.sources.choosing import source_of

    wait(source_of(place, terminal.say), name, timeout)
