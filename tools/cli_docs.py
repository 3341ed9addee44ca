"""Write docs/cli.md from the commands themselves: `python tools/cli_docs.py`. With --check: exit 1 where it differs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import click
from generated import ROOT, write_or_check

from rlhfctl.exits import Exit
from rlhfctl.main import cli

PAGE = ROOT / "docs" / "cli.md"


def page() -> str:
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield "# rlhfctl"
    yield ""
    yield "<!-- Written by tools/cli_docs.py from the commands themselves; do not edit. -->"
    yield ""
    yield inspect.cleandoc(cli.help or "")
    yield ""
    yield "Runs are those of a cluster, which is found as kubectl finds it: `--kubeconfig`, else the files of `$KUBECONFIG`, else"
    yield "`~/.kube/config`, else the service account of the pod that rlhfctl runs in; `--context` and `-n` as with kubectl."
    yield ""
    yield "`--local` or `--state DIR` selects runs on this machine. The state folder is `DIR`, else `$RLHF_STATE`, else `.rlhf`."
    yield ""
    yield "Colour only marks what a glyph and a word say too; `NO_COLOR` turns it off. Off a terminal everything is plain lines."
    yield "`RLHFCTL_DEBUG=1` prints the traceback of an error that rlhfctl does not know."
    yield ""
    yield from _exit_codes()
    ctx = click.Context(cli, info_name="rlhfctl")
    for title, entries in cli.sections.items():
        yield f"## {title}"
        yield ""
        for entry in entries:
            command = cli.get_command(ctx, entry.name)
            if command is not None:
                yield from _command(command, click.Context(command, info_name=entry.name, parent=ctx))


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes"
    yield ""
    yield "| code | meaning |"
    yield "| --- | --- |"
    for code in Exit:
        yield f"| {int(code)} | {code.meaning} |"
    yield ""


def _command(command: click.Command, ctx: click.Context) -> Iterator[str]:
    yield f"### {ctx.command_path}"
    yield ""
    yield f"    {ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}"
    yield ""
    yield from _paragraphs(command.help or "")
    records = [record for parameter in command.get_params(ctx) if (record := parameter.get_help_record(ctx)) is not None]
    options = [(names, text) for names, text in records if not names.endswith("--help")]
    if options:
        yield "| option | |"
        yield "| --- | --- |"
        for names, text in options:
            yield f"| `{names.replace('|', ', ')}` | {' '.join(text.split())} |"
        yield ""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _command(inner, click.Context(inner, info_name=name, parent=ctx))


def _paragraphs(text: str) -> Iterator[str]:
    for block in inspect.cleandoc(text).split("\n\n"):
        if block.startswith("\b"):
            yield from (f"    {line}" for line in block.splitlines()[1:])
        else:
            yield " ".join(block.split())
        yield ""


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page, __doc__, "rlhfctl"))
