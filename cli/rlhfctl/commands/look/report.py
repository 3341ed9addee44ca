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
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "md", "json"]),
    help="A page; or its tables of iterates and benchmarks as Markdown or JSON. [default: as FILE ends, else html]",
)
def command(name: str, place: Place, file: str | None, form: str | None) -> None:
    """Write the report of the run NAME: one HTML file that needs nothing else, or its tables alone.

    It works for a run in any phase, and prints the file's path. The store is read from here, for a run in a cluster too: with
    the credentials of your own environment (AWS_PROFILE, AWS_ACCESS_KEY_ID and so on).
    """
    from rlhfctl.report.writing import Form, form_of, text_of, write
    from rlhfctl.sources.choosing import source_of

    source = source_of(place, terminal.say)
    run = source.load(name)
    path = Path(file or source.report_file(name))
    chosen = Form(form) if form else form_of(path)
    if file == "-":
        terminal.stdout().stream.write(text_of(run, chosen))
        return
    if file is None:
        path = path.with_suffix(f".{chosen}")
    terminal.stdout().line(shown(write(run, path, chosen)))
