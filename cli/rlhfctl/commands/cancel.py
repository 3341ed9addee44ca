"""`rlhfctl cancel`."""

from __future__ import annotations

import click

from rlhfctl import terminal
from rlhfctl.options import local_options, run_argument, state_folder


@click.command("cancel")
@run_argument
@local_options
def command(name: str, local: bool, state_dir: str | None) -> None:
    """End the run NAME for good: its stage is stopped, its artifacts stay."""
    folder = state_folder(local, state_dir, "cancelling a run")
    from rlhf_operator.local import LocalState
    from rlhfctl.local import load
    from rlhfctl.steering import change, next_step

    state = LocalState(folder)
    changed = change(load(state, name), state, cancel=True)
    terminal.stderr().line(next_step(changed, state, f"{name} is to be cancelled"))
