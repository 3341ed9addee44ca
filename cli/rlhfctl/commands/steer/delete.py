"""`rlhfctl delete`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import place_options, run_argument, timeout_option
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place


@click.command("delete")
@run_argument
@place_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", is_flag=True, help="Wait until the run and its pods are gone.")
@timeout_option
def command(name: str, place: Place, yes: bool, wait: bool, timeout: float | None) -> None:
    """Delete the run NAME: from a cluster with its Jobs and pods, from this machine with its logs. What it made stays.

    In a cluster a run that works is stopped after a checkpoint; on this machine one that a process drives is not deleted.
    Begun again, a run finds its finished stages in the store.
    """
    from rlhfctl.commands.deleting import delete, wait_until_gone
    from rlhfctl.sources.choosing import source_of

    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
    source = source_of(place, terminal.say)
    going = delete(source, name, sure=yes)
    if wait and going is not None:
        wait_until_gone(source, going, timeout)
