"""`rlhfctl report`."""

from __future__ import annotations

from pathlib import Path

import click

from rlhfctl.commands.options import place_options, run_argument
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place, shown


@click.command("report")
@run_argument
@place_options
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    help="Where to write it; - is stdout. [default: report.html in the run's folder; of a cluster's run NAME-report.html here]",
)
def command(name: str, place: Place, file: str | None) -> None:
    """Write the report of the run NAME: one HTML file that needs nothing else.

    It works for a run in any phase, and prints the file's path. The store is read from here, for a run in a cluster too: with
    the credentials of your own environment (AWS_PROFILE, AWS_ACCESS_KEY_ID and so on).
    """
    from rlhfctl.report.writing import page_of, write
    from rlhfctl.sources.choosing import source_of

    source = source_of(place, terminal.say)
    run = source.load(name)
    if file == "-":
        terminal.stdout().stream.write(page_of(run))
        return
    terminal.stdout().line(shown(write(run, Path(file or source.report_file(name)))))
