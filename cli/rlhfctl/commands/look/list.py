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
    for sentence in listed.left_out:
        terminal.stderr().line(f"left out: {sentence}")
    out = terminal.stdout()
    if output in ("json", "yaml", "name"):
        documents.print_list(found, output, out)
    elif found:
        for line in views.list_table(found, out, datetime.now(UTC), wide=output == "wide", namespaces=place.all_namespaces):
            out.line(line)
    else:
        terminal.stderr().line(f"no runs in {source.place}")
