"""`rlhfctl run`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import local_options, manifest_argument, state_folder


@click.command("run")
@manifest_argument
@local_options
@click.option("--cpu", is_flag=True, help="Run on the CPU what the manifest gives a GPU.")
def command(file: str, local: bool, state_dir: str | None, cpu: bool) -> None:
    """Run the manifest FILE on this machine until it has ended.

    The same command resumes a run that was stopped; finished stages are not done again. Ctrl-C stops the stages after a
    checkpoint and exits with 130. 'rlhfctl submit' runs it in a cluster.
    """
    folder = state_folder(local, state_dir)
    from rlhf_operator.local import LocalState
    from rlhfctl.commands.foreground.starting import start
    from rlhfctl.sources.local.resuming import run_command

    start(file, LocalState(folder), cpu=cpu, again=run_command(folder, file, cpu=cpu))
