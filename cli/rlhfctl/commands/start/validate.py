"""`rlhfctl validate`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import STATE_HELP, manifest_argument
from rlhfctl.display import terminal


@click.command("validate")
@manifest_argument
@click.option(
    "--local", "local", is_flag=True, help="Check it for a run on this machine: its cores, its GPUs, a store in the state folder."
)
@click.option("--state", "state_dir", metavar="DIR", help=STATE_HELP)
@click.option("--cpu", is_flag=True, help="With --local: as for 'run --local --cpu'.")
def command(file: str, local: bool, state_dir: str | None, cpu: bool) -> None:
    """Check the manifest FILE and print every problem at once, each with its line, what stands there and what would be right."""
    from rlhf_operator.local import LocalState
    from rlhfctl import figures
    from rlhfctl.client.manifests import Local, read
    from rlhfctl.sources.place import local_folder

    target = None
    if local or state_dir is not None:
        target = Local(LocalState(local_folder(state_dir)).store_url, cpu=cpu)
    run = read(file, target)
    terminal.stdout().line(
        f"✓ valid: {run.metadata.name}, {figures.plural(run.spec.iterations, 'iteration')}, store {run.spec.storage.url}"
    )
