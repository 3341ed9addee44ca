"""What people answered → preference pairs. An answer is about two responses, so nothing here is a score of one."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow.parquet as pq

from rlhf_api.conventions.annotations import Choice, annotations_key, verdict
from rlhf_api.resource.training import LengthStopped
from rlhf_api.stage import LabelWork
from rlhf_store import NotFound, artifact_url
from rlhf_trainer.labelers.pairing import Pair, Paired, Scored
from rlhf_trainer.runtime.context import StageContext
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.narrow import present

from .questions import Question

_AGAIN = "Import the same answers again with `rlhfctl annotations import`: they are written anew."


@dataclass(frozen=True)
class Asked:
    """A question with all answers to it."""

    question: Question
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class People:
    """What was asked, by prompt. `least`: answers with which a pair counts."""

    asked: Mapping[str, tuple[Asked, ...]]
    least: int
    length_stopped: LengthStopped

    @classmethod
    def load(cls, context: StageContext, work: LabelWork) -> People:
        """Raises ConfigurationProblem where the answers are gone, damaged, or to other questions; StoreError."""
        human = present(work.labeler.human, "human")
        questions = present(work.questions, "the questions")
        choices = _choices(context, present(work.annotations, "the answers"))
        folder = context.artifact(questions).fetch(context.scratch / "inputs" / questions.digest[:16], ["questions.parquet"])
        columns = ["pair_id", "prompt_id", "index_a", "index_b"]
        asked: dict[str, list[Asked]] = defaultdict(list)
        for row in pq.read_table(folder / "questions.parquet", columns=columns).to_pylist():
            question = Question(row["index_a"], row["index_b"])
            asked[row["prompt_id"]].append(Asked(question, tuple(choices.pop(row["pair_id"], ()))))
        if choices:
            raise ConfigurationProblem(
                f"{annotations_key(work.annotations or '')} answers {len(choices)} pairs that are not in the questions at "
                f"{artifact_url(context.store, questions.kind, questions.fingerprint)}, such as {min(choices)}. Delete the run, "
                "begin it again, and import the answers to its own questions."
            )
        found = {prompt: tuple(own) for prompt, own in asked.items()}
        return cls(found, human.annotators_per_pair, work.label.pairing.length_stopped)

    def pairs(self, prompt: str, stopped: Mapping[int, bool], counts: dict[str, int]) -> Paired:
        """Of one prompt, with score 1 for what the majority chose and 0 for the other. `counts` gets what became of each question.

        stopped: whether a response ended by itself, by completion index.
        """
        own = self.asked.get(prompt, ())
        became = [self._judged(asked, stopped) for asked in own]
        reasons = [reason for reason in became if isinstance(reason, str)]
        for reason in reasons:
            counts[f"pairs{reason}"] = counts.get(f"pairs{reason}", 0) + 1
        for asked in own:
            majority = verdict(asked.choices) if asked.choices else None
            counts["answers"] = counts.get("answers", 0) + len(asked.choices)
            counts["answersAsMajority"] = counts.get("answersAsMajority", 0) + sum(one is majority for one in asked.choices)
        pairs = tuple(pair for pair in became if isinstance(pair, Pair))
        if pairs:
            return Paired(pairs)
        dropped = next((reason for reason in ("Tied", "Unanswered", "LengthStopped") if reason in reasons), "OfEqualResponses")
        return Paired((), f"prompts{dropped}")

    def _judged(self, asked: Asked, stopped: Mapping[int, bool]) -> Pair | str:
        """The pair, or why there is none."""
        if len(asked.choices) < self.least:
            return "Unanswered"
        chosen = verdict(asked.choices)
        if chosen is Choice.TIE:
            return "Tied"
        better, worse = (asked.question.a, asked.question.b) if chosen is Choice.A else (asked.question.b, asked.question.a)
        cut = {LengthStopped.KEEP: (), LengthStopped.REJECTED_ONLY: (better,), LengthStopped.DROP: (better, worse)}
        if not all(stopped[index] for index in cut[self.length_stopped]):
            return "LengthStopped"
        return Pair(Scored(better, 1.0, stopped[better]), Scored(worse, 0.0, stopped[worse]))


def _choices(context: StageContext, digest: str) -> dict[str, list[Choice]]:
    """By pair."""
    key = annotations_key(digest)
    try:
        content = context.store.get(key)
    except NotFound as error:
        raise ConfigurationProblem(f"The answers at {context.store.url}/{key} are gone. {_AGAIN}") from error
    if (found := hashlib.sha256(content).hexdigest()) != digest:
        raise ConfigurationProblem(
            f"The answers at {context.store.url}/{key} are not those that were imported: their SHA-256 is {found}. {_AGAIN}"
        )
    choices: dict[str, list[Choice]] = defaultdict(list)
    for row in pq.read_table(io.BytesIO(content)).to_pylist():
        choices[row["pair_id"]].append(Choice(row["choice"]))
    return choices
