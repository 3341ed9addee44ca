"""`rlhfctl status`."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

import click

from rlhfctl import terminal
from rlhfctl.options import local_options, output_option, run_argument, state_folder

if TYPE_CHECKING:
    from rlhf_api import RLHFRun
    from rlhf_operator.local import LocalState
    from rlhfctl.terminal import Terminal


@click.command("status")
@run_argument
@local_options
@output_option("json", "yaml", "wide", "name")
@click.option("-w", "--watch", is_flag=True, help="Print again at each change, until the run rests. Ctrl-C detaches.")
def command(name: str, local: bool, state_dir: str | None, output: str | None, watch: bool) -> None:
    """Show where the run NAME is, its iterates and its stages.

    It exits with 0 for a run of any phase, without --watch. With --watch the exit code is the run's, as with wait.
    """
    folder = state_folder(local, state_dir, "showing a run")
    from rlhf_operator.local import LocalState
    from rlhfctl.local import flag, load

    state, out = LocalState(folder), terminal.stdout()
    run = load(state, name)
    if not watch:
        _print(run, state, output, out)
        return
    from rlhfctl import watching

    with watching.detaching(f"rlhfctl status {name} {flag(state.folder)} --watch"):
        _watch(run, state, output, out)
    watching.mirror(load(state, name), state)


def _watch(run: RLHFRun, state: LocalState, output: str | None, out: Terminal) -> None:
    """Print at each change of the run; on a terminal in place, and as its stage progresses too."""
    from rlhfctl import watching
    from rlhfctl.local import load

    name, redraws = run.metadata.name, out.is_tty and output in (None, "wide")
    while True:
        # What to compare with is looked at before the printing, so that no change in between is missed.
        changed = watching.changes(lambda: (load(state, name), state.progress(name) if redraws else None), run, state)
        run = load(state, name)
        if redraws:
            out.stream.write("\x1b[H\x1b[2J")
        _print(run, state, output, out)
        if watching.at_rest(run, state):
            return
        watching.until(changed, None)


def _print(run: RLHFRun, state: LocalState, output: str | None, out: Terminal) -> None:
    from datetime import datetime

    from rlhfctl import documents, views

    if output in ("json", "yaml", "name"):
        documents.print_run(run, output, out)
        return
    now = datetime.now(UTC)
    lines = views.run_lines(run, out, now)
    if output == "wide":
        lines += ["", *views.stage_table(run, out, now)]
    lines += _driver(run, state)
    for line in lines:
        out.line(line)


def _driver(run: RLHFRun, state: LocalState) -> list[str]:
    """Who works on an unfinished run."""
    from rlhfctl import progress_line
    from rlhfctl.local import run_command
    from rlhfctl.rates import Rate
    from rlhfctl.watching import phase_of

    if phase_of(run).finished:
        return []
    holder = state.holder(run.metadata.name)
    if holder is None:
        return ["", f"no process drives it now; resume it: {run_command(run, state.folder)}"]
    progress = state.progress(run.metadata.name)
    now = [] if progress is None else [f"       {progress_line.text(progress, Rate())}"]
    return [*now, "", f"driven by process {holder.pid} on {holder.host}"]
