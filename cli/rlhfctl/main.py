"""The entry point: the table of commands, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from rlhfctl.commands.lazy import LazyCommand, LazyGroup

from .display import terminal
from .errors import CliError, Refused
from .exits import Exit

SECTIONS: dict[str, tuple[LazyCommand, ...]] = {
    "Start": (
        LazyCommand(
            "quickstart", "rlhfctl.commands.start.quickstart", "Make a tiny model, improve it on this machine, show a report."
        ),
        LazyCommand("validate", "rlhfctl.commands.start.validate", "Check a manifest; print every problem at once."),
        LazyCommand("explain", "rlhfctl.commands.start.explain", "Document a field of the manifest."),
        LazyCommand("run", "rlhfctl.commands.start.run", "Run a manifest on this machine, or resume it."),
        LazyCommand("submit", "rlhfctl.commands.start.submit", "Run a manifest in a cluster, or change its run."),
    ),
    "Look": (
        LazyCommand("list", "rlhfctl.commands.look.list", "List runs."),
        LazyCommand("status", "rlhfctl.commands.look.status", "Show where a run is, and its metrics."),
        LazyCommand("logs", "rlhfctl.commands.look.logs", "Print or follow the logs of a run's stages."),
        LazyCommand("events", "rlhfctl.commands.look.events", "Print a cluster's events of a run, its Jobs and pods."),
        LazyCommand("wait", "rlhfctl.commands.look.wait", "Wait until a run has ended; mirror its result."),
        LazyCommand("report", "rlhfctl.commands.look.report", "Write a run's report: one HTML file."),
    ),
    "Steer": (
        LazyCommand("approve", "rlhfctl.commands.steer.approve", "Let a run go on that a gate paused."),
        LazyCommand("annotations", "rlhfctl.commands.steer.annotations", "Take out what a run asks people; bring in answers."),
        LazyCommand("suspend", "rlhfctl.commands.steer.suspend", "Stop a run's stage after a checkpoint."),
        LazyCommand("resume", "rlhfctl.commands.steer.resume", "Let a suspended run go on."),
        LazyCommand("cancel", "rlhfctl.commands.steer.cancel", "End a run for good."),
        LazyCommand("delete", "rlhfctl.commands.steer.delete", "Delete a run; its artifacts stay."),
    ),
    "More": (
        LazyCommand("completion", "rlhfctl.commands.more.completion", "Print a completion script for bash, zsh or fish."),
        LazyCommand("version", "rlhfctl.commands.more.version", "Print the version."),
    ),
}


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        ctx.invoke(import_module("rlhfctl.commands.more.version").command)
        ctx.exit()


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Runs are those of a cluster, as kubectl finds it; --local or --state DIR: those of this machine. "
    "'rlhfctl COMMAND --help' says more.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version.")
def cli() -> None:
    """Online iterative RLHF: describe a run in one manifest, run it, watch it.

    Data goes to stdout, everything else to stderr.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run rlhfctl and exit."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run rlhfctl and return its exit code. No traceback reaches the user unless RLHFCTL_DEBUG is set."""
    try:
        result = cli.main(args=None if argv is None else list(argv), prog_name="rlhfctl", standalone_mode=False)
        return int(result) if isinstance(result, int) else Exit.OK
    except CliError as error:
        if isinstance(error, Refused):
            for problem in error.problems:
                terminal.stderr().wrapped(problem, "✗ ", "red")
        _print_error(error.what, error.why, error.hints)
        return error.exit
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        _print_usage(error)
        return Exit.USAGE
    except (KeyboardInterrupt, click.Abort):
        _print_error("interrupted")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our pipe has gone (head, less): nothing is left to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as error:
        if os.environ.get("RLHFCTL_DEBUG"):
            traceback.print_exc()
        else:
            _print_unexpected(error)
        return Exit.RUN_FAILED


def _print_error(what: str, why: str = "", hints: Sequence[str] = ()) -> None:
    out = terminal.stderr()
    out.wrapped(what, "✗ error: ", "bold", "red")
    for number, line in enumerate(why.splitlines()):
        out.wrapped(line, "       " if number else "  why: ", "bold")
    for hint in hints:
        if re.match(r"(then )?(rlhfctl|kubectl) ", hint):
            # One that is broken over lines cannot be pasted.
            out.line(f"{out.paint('  try:', 'bold')} {hint}")
        else:
            out.wrapped(hint, "  try: ", "bold")


def _print_usage(error: click.ClickException) -> None:
    ctx = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        terminal.stderr().line(error.format_message())
        return
    where = ctx.command_path if ctx else "rlhfctl"
    _print_error(error.format_message().replace("\n", " "), hints=(f"{where} --help",))


def _print_unexpected(error: Exception) -> None:
    """An error that we did not foresee is our defect: say so in two lines, and keep the trace where it can be sent from."""
    import tempfile

    why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    with tempfile.NamedTemporaryFile("w", prefix="rlhfctl-", suffix=".log", delete=False) as file:
        traceback.print_exc(file=file)
    hint = f"send {file.name} to the maintainers; RLHFCTL_DEBUG=1 prints it here"
    _print_error("rlhfctl met an error that it does not know", why, (hint,))
