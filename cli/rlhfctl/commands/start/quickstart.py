"""`rlhfctl quickstart`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import state_option
from rlhfctl.sources.place import flag, local_folder


@click.command("quickstart")
@state_option
@click.option(
    "--seed", metavar="N", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of model, data and run."
)
def command(state_dir: str | None, seed: int) -> None:
    """Make a tiny language model and its data here, improve it by online iterative DPO, and write a report.

    Nothing is downloaded. It takes some minutes on two cores; the same command resumes.
    """
    from rlhf_operator.local import LocalState
    from rlhfctl.commands.foreground.quickstart import prepare
    from rlhfctl.commands.foreground.starting import start
    from rlhfctl.sources.local.resuming import program

    state = LocalState(local_folder(state_dir))
    where = flag(state.folder)
    again = " ".join([f"{program()} quickstart", *([where] if where != "--local" else []), *([f"--seed {seed}"] if seed else [])])
    start(prepare(state, seed), state, cpu=False, again=again)
