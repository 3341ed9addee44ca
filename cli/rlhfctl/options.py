"""Options that more than one command has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .errors import UsageProblem

Command = TypeVar("Command", bound=Callable[..., Any])
DEFAULT_STATE = ".rlhf"


def local_options(command: Command) -> Command:
    """`--local` and `--state DIR`: both select the local state folder."""
    command = click.option(
        "--state", "state_dir", metavar="DIR", help="The local state folder; implies --local. [default: $RLHF_STATE or .rlhf]"
    )(command)
    return click.option("--local", "local", is_flag=True, help="Runs on this machine.")(command)


def state_option(command: Command) -> Command:
    """`--state DIR` for commands that are always local."""
    return click.option("--state", "state_dir", metavar="DIR", help="The local state folder. [default: $RLHF_STATE or .rlhf]")(
        command
    )


def output_option(*formats: str) -> Callable[[Command], Command]:
    return click.option(
        "-o", "--output", "output", type=click.Choice(formats), help="Print the whole object, more columns, or just names."
    )


def run_argument(command: Command) -> Command:
    return click.argument("name", shell_complete=_complete_run)(command)


def state_folder(local: bool, state_dir: str | None, what: str) -> Path:
    """The folder that --local, --state and RLHF_STATE select.

    Raises:
        UsageProblem: without --local or --state. `what` says what the command would do.
    """
    if not local and state_dir is None:
        raise UsageProblem(
            f"{what} in a cluster is not available in this version",
            why="this version runs and inspects runs on this machine",
            hints=("add --local, or --state DIR",),
        )
    return local_folder(state_dir)


def local_folder(state_dir: str | None) -> Path:
    """An absolute path: it goes into file:// URLs."""
    return Path(state_dir or os.environ.get("RLHF_STATE") or DEFAULT_STATE).expanduser().absolute()


def _complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    folder = local_folder(ctx.params.get("state_dir")) / "runs"
    return sorted(path.name for path in folder.glob("*") if path.is_dir() and path.name.startswith(incomplete))
