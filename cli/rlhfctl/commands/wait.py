"""`rlhfctl wait`."""

from __future__ import annotations

import click

from rlhfctl import terminal
from rlhfctl.options import local_options, run_argument, state_folder


@click.command("wait")
@run_argument
@local_options
@click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(min=0), help="Give up after this; exit code 100. [default: never]"
)
def command(name: str, local: bool, state_dir: str | None, timeout: float | None) -> None:
    """Wait until the run NAME has ended; exit as it did.

    0: it succeeded; 1: it failed, was cancelled, or rests without having ended; 100: timeout; 101: Ctrl-C, the run goes on.
    """
    folder = state_folder(local, state_dir, "waiting for a run")
    from rlhf_operator.local import LocalState
    from rlhfctl import figures, watching
    from rlhfctl.errors import TimedOut
    from rlhfctl.local import flag, load

    state = LocalState(folder)
    load(state, name)
    with watching.detaching(f"rlhfctl wait {name} {flag(state.folder)}"):
        ended = watching.until(lambda: watching.at_rest(load(state, name), state), timeout)
    run = load(state, name)
    if not ended:
        spent = figures.duration(timeout or 0)
        raise TimedOut(
            f"run {name!r} is still {watching.phase_of(run).value} after {spent}",
            hints=(f"rlhfctl status {name} {flag(state.folder)}",),
        )
    watching.mirror(run, state)
    terminal.stderr().line(f"run {name!r} has succeeded")
