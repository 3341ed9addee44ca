"""`rlhfctl status`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from rlhfctl.commands.options import output_option, place_options, run_argument
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place

if TYPE_CHECKING:
    from rlhfctl.display.terminal import Terminal
    from rlhfctl.errors import OtherVersion
    from rlhfctl.sources.source import Sight, Source


@click.command("status")
@run_argument
@place_options
@output_option("json", "yaml", "wide", "name")
@click.option("-w", "--watch", is_flag=True, help="Print again at each change, until the run rests. Ctrl-C detaches.")
def command(name: str, place: Place, output: str | None, watch: bool) -> None:
    """Show where the run NAME is, its iterates and its stages.

    It exits with 0 for a run of any phase, without --watch. With --watch the exit code is the run's, as with wait.
    """
    from rlhfctl.commands.watching import detaching, mirror
    from rlhfctl.errors import OtherVersion
    from rlhfctl.sources.choosing import source_of
    from rlhfctl.sources.source import command_for

    source, out = source_of(place, terminal.say), terminal.stdout()
    if not watch:
        try:
            _print(next(source.watch(name, timeout=0)), source, output, out)
        except OtherVersion as error:
            _print_stored(error, output, out)
        return
    with detaching(command_for(source, "status", name, "--watch")):
        last = _watch(source, name, output, out)
    mirror(last.run, source)


def _print_stored(error: OtherVersion, output: str | None, out: Terminal) -> None:
    from rlhfctl.display import documents, views
    from rlhfctl.sources.source import stored_of

    if output in ("json", "yaml", "name"):
        documents.print_stored(stored_of(error), output, out)
        return
    for line in views.stored_lines(stored_of(error), out):
        out.line(line)
    for hint in error.hints:
        out.line(f"  {hint}")


def _watch(source: Source, name: str, output: str | None, out: Terminal) -> Sight:
    """Print at each change of the run; on a terminal in place, and as its stage progresses too. Returns what was printed last."""
    in_place = out.is_tty and output in (None, "wide")
    sights = source.watch(name)
    last = next(sights)
    _show(last, source, output, out, in_place=in_place)
    for sight in sights:
        if in_place or sight.run != last.run:
            _show(sight, source, output, out, in_place=in_place)
        last = sight
    return last


def _show(sight: Sight, source: Source, output: str | None, out: Terminal, *, in_place: bool) -> None:
    if in_place:
        out.stream.write("\x1b[H\x1b[2J")
    _print(sight, source, output, out)


def _print(sight: Sight, source: Source, output: str | None, out: Terminal) -> None:
    from rlhfctl.display import documents, progress_line, views
    from rlhfctl.display.rates import Rate
    from rlhfctl.sources.source import answers_of_people

    if output in ("json", "yaml", "name"):
        documents.print_run(sight.run, output, out)
        return
    now = datetime.now(UTC)
    lines = views.run_lines(sight.run, out, now)
    if output == "wide":
        lines += ["", *views.stage_table(sight.run, out, now)]
    if sight.progress is not None:
        lines.append(f"       {progress_line.text(sight.progress, Rate())}")
    if commands := answers_of_people(source, sight.run):
        lines += ["", *(f"  {line}" for line in commands)]
    for line in lines + source.driver_lines(sight):
        out.line(line)
