"""`rlhfctl list`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from rlhfctl.commands.options import all_namespaces_option, output_option, place_options
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place


@click.command("list")
@place_options
@all_namespaces_option
@output_option("json", "yaml", "wide", "name")
def command(place: Place, output: str | None) -> None:
    """List runs."""
    from rlhfctl.display import documents, views
    from rlhfctl.sources.choosing import source_of

    source = source_of(place, terminal.say)
    listed = source.runs()
    found = listed.runs
    for run in listed.stored:
        terminal.stderr().line(f"not understood: {run.why}")
    for sentence in listed.left_out:
        terminal.stderr().line(f"left out: {sentence}")
    out = terminal.stdout()
    if output in ("json", "yaml", "name"):
        documents.print_list(found, output, out, listed.stored)
    elif found or listed.stored:
        wide, now = output == "wide", datetime.now(UTC)
        for line in views.list_table(found, out, now, wide=wide, namespaces=place.all_namespaces, stored=listed.stored):
            out.line(line)
    else:
        terminal.stderr().line(f"no runs in {source.place}")
