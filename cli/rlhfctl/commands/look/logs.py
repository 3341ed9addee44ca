"""`rlhfctl logs`."""

from __future__ import annotations

import click

from rlhfctl.commands.options import place_options, run_argument
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place

STAGES = (
    *("preflight", "sft", "reward", "judge", "sample", "ask", "label"),
    *("reference", "train", "evaluate", "benchmark", "finalize"),
)
"""Stages that have logs. Written out, for the API's words take pydantic with them, and help must be quick."""


@click.command("logs")
@run_argument
@place_options
@click.option("-f", "--follow", is_flag=True, help="Go on as the run writes, from stage to stage. Ctrl-C detaches.")
@click.option("--stage", type=click.Choice(STAGES), help="Of this stage only.")
@click.option(
    "--iteration", type=click.IntRange(min=0), metavar="N", help="Of this iteration only; 0: the stages of the run itself."
)
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Of this attempt only. [default: all]")
def command(name: str, place: Place, follow: bool, stage: str | None, iteration: int | None, attempt: int | None) -> None:
    """Print the logs of the run NAME, oldest stage first.

    A heading on stderr names each log; stdout has the logs alone. In a cluster, lines of several shards carry the shard
    before them, and the log of a pod that is gone comes from the store, before those of pods: with the credentials of your
    own environment (AWS_PROFILE, AWS_ACCESS_KEY_ID and so on). What is in neither is said on stderr.
    """
    from rlhf_api.words import StageName
    from rlhfctl.commands.watching import follow_logs, print_logs
    from rlhfctl.sources.choosing import source_of
    from rlhfctl.sources.source import LogSelection

    source = source_of(place, terminal.say)
    wanted = LogSelection(None if stage is None else StageName(stage), iteration, attempt)
    if follow:
        follow_logs(source, name, wanted)
    else:
        print_logs(source, name, wanted, follow=False)
