"""`rlhfctl delete`."""

from __future__ import annotations

import click

from rlhfctl.options import Place, cluster_options, run_argument, timeout_option


@click.command("delete")
@run_argument
@cluster_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", is_flag=True, help="Wait until the run and its pods are gone.")
@timeout_option
def command(name: str, place: Place, yes: bool, wait: bool, timeout: float | None) -> None:
    """Delete the run NAME, its Jobs and its pods from the cluster. What it made stays in the store.

    A run that works is stopped after a checkpoint. Submitted again, it finds its finished stages in the store.
    """
    from rlhfctl.deleting import delete
    from rlhfctl.places import cluster_of

    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
    source = cluster_of(place)
    delete(source, name, sure=yes)
    if wait:
        from rlhfctl.deleting import wait_until_gone

        wait_until_gone(source, name, timeout)
