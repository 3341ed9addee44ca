"""`rlhfctl approve`."""

from __future__ import annotations

import click

from rlhfctl import terminal
from rlhfctl.options import local_options, run_argument, state_folder


@click.command("approve")
@run_argument
@click.argument("gate", required=False)
@local_options
@click.option("--iteration", type=click.IntRange(min=1), metavar="N", help="Of this iteration. [default: the one that waits]")
def command(name: str, gate: str | None, local: bool, state_dir: str | None, iteration: int | None) -> None:
    """Let the run NAME go on that GATE paused. Without GATE: the one that waits."""
    folder = state_folder(local, state_dir, "approving a gate")
    from rlhf_operator.local import LocalState
    from rlhfctl.local import load
    from rlhfctl.steering import change, next_step, waiting_gate

    state = LocalState(folder)
    run = load(state, name)
    approval = waiting_gate(run, gate, iteration)
    changed = change(run, state, approvals=[*run.spec.approvals, approval])
    what = f"gate {approval.gate!r} of iteration {approval.iteration} is approved"
    terminal.stderr().line(next_step(changed, state, what))
