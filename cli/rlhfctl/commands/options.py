"""Options that more than one command has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rlhfctl.errors import UsageProblem
from rlhfctl.sources.place import Place, local_folder

Command = TypeVar("Command", bound=Callable[..., Any])
STATE_HELP = "The local state folder; implies --local. [default: $RLHF_STATE or .rlhf]"


def place_options(command: Command) -> Command:
    """`--local`, `--state` for a state folder; `-n`, `--context`, `--kubeconfig` for a cluster: the command gets a `place`."""
    local = (
        click.option("--local", "local", is_flag=True, help="Runs on this machine, not in a cluster."),
        click.option("--state", "state_dir", metavar="DIR", help=STATE_HELP),
    )
    return _placed(command, (*local, *_cluster_options()))


def cluster_options(command: Command) -> Command:
    """Those of `place_options` that select a cluster, for commands that are of a cluster only."""
    return _placed(command, _cluster_options())


def _cluster_options() -> tuple[Callable[[Command], Command], ...]:
    return (
        click.option("-n", "--namespace", "namespace", metavar="NAME", help="Namespace of the cluster. [default: the context's]"),
        click.option("--context", "context", metavar="NAME", help="Context of the kubeconfig. [default: the current one]"),
        click.option("--kubeconfig", "kubeconfig", metavar="FILE", help="The kubeconfig. [default: $KUBECONFIG or ~/.kube/config]"),
    )


def _placed(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    @functools.wraps(command)
    def with_place(
        *,
        local: bool = False,
        state_dir: str | None = None,
        kubeconfig: str | None = None,
        context: str | None = None,
        namespace: str | None = None,
        all_namespaces: bool = False,
        **rest: Any,
    ) -> Any:
        return command(place=Place(local, state_dir, kubeconfig, context, namespace, all_namespaces), **rest)

    for option in reversed(options):
        with_place = option(with_place)
    return with_place  # type: ignore[return-value]


def all_namespaces_option(command: Command) -> Command:
    return click.option("-A", "--all-namespaces", "all_namespaces", is_flag=True, help="Of every namespace of the cluster.")(
        command
    )


def local_options(command: Command) -> Command:
    """`--local` and `--state DIR`: both select the local state folder."""
    command = click.option("--state", "state_dir", metavar="DIR", help=STATE_HELP)(command)
    return click.option("--local", "local", is_flag=True, help="Runs on this machine.")(command)


def state_option(command: Command) -> Command:
    """`--state DIR` for commands that are always local."""
    return click.option("--state", "state_dir", metavar="DIR", help="The local state folder. [default: $RLHF_STATE or .rlhf]")(
        command
    )


def output_option(*formats: str) -> Callable[[Command], Command]:
    columns = ", more columns" if "wide" in formats else ""
    return click.option(
        "-o", "--output", "output", type=click.Choice(formats), help=f"Print the whole object{columns}, or just names."
    )


def timeout_option(command: Command) -> Command:
    return click.option(
        "--timeout", metavar="SECONDS", type=click.FloatRange(min=0), help="Give up after this; exit code 100. [default: never]"
    )(command)


def run_argument(command: Command) -> Command:
    return click.argument("name", shell_complete=_complete_run)(command)


def manifest_argument(command: Command) -> Command:
    """`FILE`, or `-f FILE` as kubectl users write it; - is stdin. The command gets it as `file`."""

    @functools.wraps(command)
    def with_file(*, file: str | None, filename: str | None, **rest: Any) -> Any:
        if (file is None) == (filename is None):
            raise click.UsageError("give one manifest: FILE, or -f FILE" if file is None else "give FILE or -f FILE, not both")
        return command(file=file or filename, **rest)

    path = click.Path(dir_okay=False, allow_dash=True)
    with_option = click.option("-f", "--filename", "filename", metavar="FILE", type=path, help="The manifest; - is stdin.")(
        with_file
    )
    return click.argument("file", type=path, required=False)(with_option)  # type: ignore[return-value]


def state_folder(local: bool, state_dir: str | None) -> Path:
    """The folder that --local, --state and RLHF_STATE select.

    Raises:
        UsageProblem: without --local or --state.
    """
    if not local and state_dir is None:
        raise UsageProblem(
            "'rlhfctl run' runs a manifest on this machine, and wants to be told so",
            hints=("add --local, or --state DIR", "rlhfctl submit FILE   runs it in a cluster"),
        )
    return local_folder(state_dir)


def _complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    from .completing import run_names

    given = ctx.params
    place = Place(
        bool(given.get("local")), given.get("state_dir"), given.get("kubeconfig"), given.get("context"), given.get("namespace")
    )
    return [name for name in run_names(place) if name.startswith(incomplete)]
