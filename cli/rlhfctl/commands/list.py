"""`rlhfctl list`."""

from __future__ import annotations

from datetime import UTC

import click

from rlhfctl import terminal
from rlhfctl.options import local_options, output_option, state_folder


@click.command("list")
@local_options
@output_option("json", "yaml", "wide", "name")
def command(local: bool, state_dir: str | None, output: str | None) -> None:
    """List runs."""
    folder = state_folder(local, state_dir, "listing runs")
    from datetime import datetime

    from rlhf_operator.local import LocalState
    from rlhfctl import documents, views
    from rlhfctl.local import runs, shown

    found = runs(LocalState(folder))
    out = terminal.stdout()
    if output in ("json", "yaml", "name"):
        documents.print_list(found, output, out)
    elif found:
        for line in views.list_table(found, out, datetime.now(UTC), wide=output == "wide"):
            out.line(line)
    else:
        terminal.stderr().line(f"no runs in {shown(folder)}")
