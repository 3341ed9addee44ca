"""`rlhfctl annotations`."""

from __future__ import annotations

from pathlib import Path

import click

from rlhfctl.commands.options import place_options, run_argument
from rlhfctl.display import terminal
from rlhfctl.sources.place import Place

_iteration = click.option("--iteration", type=click.IntRange(min=1), metavar="N", required=True, help="The iteration that asks.")


@click.group("annotations")
def command() -> None:
    """Take out what a run asks people, and bring in what they answer.

    A run whose reward is of type Human waits in each iteration until its questions are answered.
    """


@command.command("export")
@run_argument
@place_options
@_iteration
@click.option(
    "--output", "folder", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where to write."
)
def export(name: str, place: Place, iteration: int, folder: Path) -> None:
    """Write the questions of an iteration of the run NAME: as JSON lines, as Parquet, with a README for annotators.

    They come from the run's store, with the credentials of your own environment.
    """
    from rlhfctl.client import annotations
    from rlhfctl.results.store import open_store_of, store_errors
    from rlhfctl.sources.choosing import source_of
    from rlhfctl.sources.source import command_for

    source = source_of(place, terminal.say)
    run = source.load(name)
    annotations.human_of(run)
    bring_in = command_for(source, "annotations", "import", name, "--iteration", str(iteration), "FILE")
    with store_errors():
        questions = annotations.questions_of(run, open_store_of(run), iteration)
        pairs = annotations.export(run, questions, iteration, folder, bring_in)
    out = terminal.stderr()
    out.line(f"{pairs} pairs are in {folder}; its README says what is expected back")
    out.line(f"bring the answers in: {bring_in}")


@command.command("import")
@run_argument
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(dir_okay=False, path_type=Path))
@place_options
@_iteration
@click.option("--partial", is_flag=True, help="Also where fewer pairs are answered than reward.human.minAnswered asks for.")
def import_(name: str, files: tuple[Path, ...], place: Place, iteration: int, *, partial: bool) -> None:
    """Bring in what people answered to an iteration of the run NAME, and let it go on.

    Each FILE has a row an answer, with pair_id, annotator and choice (A, B or tie); it ends in .jsonl, .json, .csv or .parquet.
    What Label Studio and Argilla export of a question named choice is taken as it is. All answers of an iteration are given
    at once. Giving the same again changes nothing.
    """
    from rlhf_api.conventions.annotations import annotations_key
    from rlhfctl.client import annotations, steering
    from rlhfctl.client.answer_files import read_answers
    from rlhfctl.results.store import open_store_of, store_errors
    from rlhfctl.sources.choosing import source_of

    source = source_of(place, terminal.say)
    run = source.load(name)
    human = annotations.human_of(run)
    annotations.require_open(run, iteration)
    with store_errors():
        store = open_store_of(run)
        asked = annotations.pair_ids(annotations.questions_of(run, store, iteration).read("questions.jsonl"))
    given = [answer for path in files for answer in read_answers(path)]
    answers, counts = annotations.checked(given, asked, human, partial=partial)
    content = annotations.canonical(answers)
    entry = annotations.entry_of(iteration, content)
    known = annotations.is_known(entry, name, run.spec)
    with store_errors():
        # Also what is known: label asks for it where the file is gone.
        store.put(annotations_key(entry.digest), content)
    out, found = terminal.stderr(), counts.tally
    out.line(
        f"{found.answers} answers of {len(found.annotators)} annotators: {found.answered} of {counts.pairs} pairs are answered, "
        f"{found.tied} of them without a majority"
    )
    if counts.blank:
        out.line(f"{counts.blank} rows have no choice, and are no answers")
    agreement = "no two answers to compare" if found.alpha is None else f"{found.alpha:.3f}"
    out.line(f"agreement of annotators (Krippendorff's alpha, nominal): {agreement}")
    if known:
        out.line(f"iteration {iteration} has these answers already: nothing is changed")
    else:
        out.line(steering.annotate(source, run, entry))
