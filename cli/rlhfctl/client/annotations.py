"""Questions of a run for people, and what they answered: out of the run's store, and into it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_api import RLHFRun
from rlhf_api.conventions.annotations import COLUMNS, Choice, Tally, annotations_key, tally
from rlhf_api.resource.labeler import Annotations, Human
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.stage import ArtifactRef
from rlhf_api.words import STAGE_ARTIFACT, Phase, StageName
from rlhf_store import Artifact, Store, open_artifact
from rlhfctl.client.answer_files import Answer
from rlhfctl.errors import CliError, Conflict, NotFound, Refused, UsageProblem

QUESTIONS = ("questions.parquet", "questions.jsonl")
#: Problems that are told at once.
_SHOWN = 20
_README = """\
questions.jsonl and questions.parquet hold the same {pairs} pairs of responses of iteration {iteration} of run {run}.
{instructions}
Expected back: a file of JSON lines, CSV with a header, or Parquet, with a row an answer: pair_id, annotator (any name that is one
person's own), choice (A, B or tie). What Label Studio and Argilla export of a question named "choice" can be given as it is.
Bring it in with: {bring_in}
"""


@dataclass(frozen=True)
class Counts:
    """pairs: that were asked about. blank: rows without a choice, which are no answers."""

    pairs: int
    blank: int
    tally: Tally


def human_of(run: RLHFRun) -> Human:
    """Raises UsageProblem where nobody is asked."""
    human = run.spec.reward.human
    if human is None:
        name, kind = run.metadata.name, run.spec.reward.type.value
        raise UsageProblem(f"run {name!r} asks nobody", why=f"its reward is of type {kind}, and people answer one of type Human")
    return human


def questions_of(run: RLHFRun, store: Store, iteration: int) -> Artifact:
    """Raises NotFound where the iteration has not asked yet; StoreError."""
    status = run.status or RLHFRunStatus()
    for entry in status.iterations:
        for stage in entry.stages if entry.number == iteration else ():
            if stage.name is StageName.ASK and stage.phase is Phase.SUCCEEDED and stage.artifact is not None:
                found = stage.artifact
                return open_artifact(
                    store, ArtifactRef(kind=STAGE_ARTIFACT[stage.name], fingerprint=found.fingerprint, digest=found.digest)
                )
    name = run.metadata.name
    raise NotFound(
        f"iteration {iteration} of run {name!r} has no questions",
        why=f"the run is {status.phase.value}: {status.message or 'it has not begun'}",
        hints=(f"rlhfctl status {name}   shows where it is",),
    )


def export(run: RLHFRun, questions: Artifact, iteration: int, folder: Path, bring_in: str) -> int:
    """The sealed files as they are, and a README; how many pairs they hold. `bring_in`: the command for their answers.

    Raises UsageProblem where the folder cannot be written; StoreError.
    """
    contents = {name: questions.read(name) for name in QUESTIONS}
    pairs = len(pair_ids(contents["questions.jsonl"]))
    instructions = human_of(run).instructions
    told = f"\n{instructions}\n" if instructions else ""
    text = _README.format(run=run.metadata.name, iteration=iteration, pairs=pairs, instructions=told, bring_in=bring_in)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in {**contents, "README": text.encode()}.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise UsageProblem(f"{folder} cannot be written", why=str(error)) from error
    return pairs


def pair_ids(lines: bytes) -> list[str]:
    """Of questions.jsonl."""
    # Not splitlines: it also ends lines at characters that JSON lets stand in a text.
    return [str(json.loads(line)["pair_id"]) for line in lines.decode().split("\n") if line]


def checked(answers: Iterable[Answer], asked: Sequence[str], human: Human, *, partial: bool) -> tuple[list[Answer], Counts]:
    """Each annotator's answer to each pair once, in one order, with what there is to say of them.

    Raises Refused with every row that cannot be taken, or where less than human.minAnswered is answered and not `partial`.
    """
    kept: dict[tuple[str, str], Answer] = {}
    known, problems, others, blank = frozenset(asked), [], 0, 0
    for answer in answers:
        if not answer.choice:
            blank += 1
        elif answer.pair_id not in known:
            problems.append(f"{answer.where}: {answer.pair_id!r} is no pair of this iteration")
            others += 1
        elif answer.choice not in list(Choice):
            problems.append(f"{answer.where}: {answer.choice!r} is no choice; write A, B or tie")
        elif not answer.annotator:
            problems.append(f"{answer.where}: names no annotator")
        else:
            former = kept.setdefault((answer.pair_id, answer.annotator), answer)
            if former.choice != answer.choice:
                problems.append(
                    f"{answer.where}: {answer.annotator} answers {answer.choice} for {answer.pair_id}, and {former.choice} in "
                    f"{former.where}"
                )
    if problems:
        more = (f"and {len(problems) - _SHOWN} more",) if len(problems) > _SHOWN else ()
        hint = "they answer the questions of another run or iteration: export those of this one, and ask about them"
        raise Refused(
            f"{len(problems)} of the answers cannot be taken; nothing is imported",
            problems=(*problems[:_SHOWN], *more),
            hints=(hint,) if others == len(problems) and not kept else (),
        )
    taken = [kept[key] for key in sorted(kept)]
    found = tally(((answer.pair_id, answer.annotator, Choice(answer.choice)) for answer in taken), human.annotators_per_pair)
    if not found.answered or (found.answered < human.min_answered * len(known) and not partial):
        raise Refused(
            f"{found.answered} of {len(known)} pairs are answered; nothing is imported",
            why=f"reward.human asks for {human.annotators_per_pair} answers to a pair, and for {human.min_answered:.0%} of the "
            f"pairs (minAnswered); there are {found.answers} answers of {len(found.annotators)} annotators",
            hints=(
                "give all files at once, or --partial to go on with what there is" if found.answered else "give all files at once",
            ),
        )
    return taken, Counts(len(known), blank, found)


def canonical(answers: Sequence[Answer]) -> bytes:
    """The same answers are the same bytes, whatever files they came in. Raises CliError without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CliError("answers are kept as Parquet, and pyarrow is not installed", hints=("pip install pyarrow",)) from error
    table = pa.table({name: pa.array([str(getattr(answer, name)) for answer in answers], pa.string()) for name in COLUMNS})
    out = io.BytesIO()
    pq.write_table(table, out, compression="none")
    return out.getvalue()


def require_open(run: RLHFRun, iteration: int) -> None:
    """Raises Conflict where the run has ended: nothing that is imported would be read."""
    status = run.status or RLHFRunStatus()
    if status.phase.finished:
        raise Conflict(
            f"run {run.metadata.name!r} has ended ({status.phase.value}), and takes no answers to iteration {iteration} any more",
            why=status.message,
            hints=("begin it again: it goes on from what is sealed, and asks for answers again",),
        )


def entry_of(iteration: int, content: bytes) -> Annotations:
    """The entry of spec.annotations of these answers."""
    return Annotations(iteration=iteration, digest=hashlib.sha256(content).hexdigest())


def is_known(entry: Annotations, name: str, spec: RLHFRunSpec) -> bool:
    """Whether the run has these answers. Raises Conflict where it has others to the same iteration."""
    for former in spec.annotations:
        if former.iteration == entry.iteration and former.digest != entry.digest:
            raise Conflict(
                f"iteration {entry.iteration} of run {name!r} has other answers",
                why=f"spec.annotations has {annotations_key(former.digest)}, and these are {annotations_key(entry.digest)}; what "
                "was imported stays, for labels may be made of it",
                hints=("delete the run and submit it again: it goes on from what is sealed, and asks for answers again",),
            )
    return entry in spec.annotations
