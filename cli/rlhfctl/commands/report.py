"""`rlhfctl report`."""

from __future__ import annotations

from pathlib import Path

import click

from rlhfctl import terminal
from rlhfctl.options import local_options, run_argument, state_folder


@click.command("report")
@run_argument
@local_options
@click.option(
    "-o", "--output", "file", metavar="FILE", help="Where to write it; - is stdout. [default: report.html in the run's folder]"
)
def command(name: str, local: bool, state_dir: str | None, file: str | None) -> None:
    """Write the report of the run NAME: one HTML file that needs nothing else.

    It works for a run in any phase, and prints the file's path.
    """
    folder = state_folder(local, state_dir, "reporting on a run")
    from rlhf_operator.local import LocalState
    from rlhfctl.local import load, shown
    from rlhfctl.reporting import page_of, write

    state = LocalState(folder)
    run = load(state, name)
    if file == "-":
        terminal.stdout().stream.write(page_of(run))
        return
    path = Path(file) if file else state.run_folder(name) / "report.html"
    terminal.stdout().line(shown(write(run, path)))
