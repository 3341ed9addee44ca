"""`rlhfctl submit`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import cluster_options, manifest_argument, output_option, timeout_option
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place


@click.command("submit")
@manifest_argument
@cluster_options
@click.option(
    "--dry-run",
    type=click.Choice(("none", "client", "server")),
    default="none",
    help="client: validate, and send nothing; server: let the API server check it, and store nothing.",
)
@output_option("json", "yaml", "name")
@click.option("--wait", is_flag=True, help="Wait until the run has ended, and exit as it did.")
@click.option("--follow", is_flag=True, help="The same, with its logs.")
@timeout_option
def command(file: str, place: Place, dry_run: str, output: str | None, wait: bool, follow: bool, timeout: float | None) -> None:
    """Run the manifest FILE in a cluster: create the run, or change what may change of the one that has its name.

    It is validated first. What others set with suspend, cancel and approve stays where the manifest does not say.
    """
    from rlhfctl.client.submitting import DryRun, submit
    from rlhfctl.commands import watching
    from rlhfctl.display import documents
    from rlhfctl.sources.choosing import cluster_of
    from rlhfctl.sources.source import LogSelection, command_for

    dry = DryRun(dry_run)
    _check(dry is not DryRun.NONE, wait, follow, timeout)
    source = cluster_of(place, terminal.say)
    done = submit(source, file, dry)
    out, name = terminal.stdout(), done.run.metadata.name
    if output is not None:
        documents.print_run(done.run, output, out)
    else:
        suffix = "" if dry is DryRun.NONE else f" ({dry.value} dry run)"
        out.line(f"{documents.name_of(done.run.metadata.name)} {done.done}{suffix}")
    if dry is not DryRun.NONE:
        return
    source = source.in_namespace(done.run.metadata.namespace)
    if follow:
        watching.follow_logs(source, name, LogSelection())
    elif wait:
        watching.wait(source, name, timeout)
    elif output is None:
        terminal.stderr().line(f"follow it: {command_for(source, 'logs', name, '-f')}")


def _check(dry: bool, wait: bool, follow: bool, timeout: float | None) -> None:
    if dry and (wait or follow):
        raise click.UsageError("a dry run makes no run that could be waited for; leave --wait and --follow out")
    if wait and follow:
        raise click.UsageError("give --wait or --follow: following waits too")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
