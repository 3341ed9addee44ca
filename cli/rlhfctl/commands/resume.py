"""`rlhfctl resume`."""

from __future__ import annotations

import click

from rlhfctl import terminal
from rlhfctl.options import local_options, run_argument, state_folder


@click.command("resume")
@run_argument
@local_options
def command(name: str, local: bool, state_dir: str | None) -> None:
    """Let the run NAME go on that was suspended."""
    folder = state_folder(local, state_dir, "resuming a run")
    from rlhf_operator.local import LocalState
    from rlhfctl.local import load
    from rlhfctl.steering import change, next_step

    state = LocalState(folder)
    changed = change(load(state, name), state, suspend=False)
    terminal.stderr().line(next_step(changed, state, f"{name} is to go on"))
