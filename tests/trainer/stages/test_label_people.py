"""label where people are the labeler: pairs are what a majority chose, and whatever gives none is counted by its reason."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.conventions.annotations import annotations_key
from rlhf_api.metrics import Metric
from rlhf_api.resource.labeler import Human, Labeler, LabelerType
from rlhf_api.resource.storage import Storage
from rlhf_api.resource.training import Label
from rlhf_api.stage import AskWork, LabelWork, StageResult
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import ArtifactWriter, open_artifact, open_store
from rlhf_trainer.data.parquet import LABELS, SAMPLES
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.stages import ask, label
from support.stages import config_of, context_of

#: By prompt, responses; one that ends in … was cut.
TEXTS = {
    "p0": ["good", "bad"],
    "p1": ["bad", "good"],
    "p2": ["x", "y"],
    "p3": ["x", "y"],
    "p4": ["same", "same"],
    "p5": ["good…", "bad"],
}
Answers = dict[str, list[str]]
GOOD: Answers = {"p0": ["good", "good", "bad"], "p1": ["good", "good"], "p2": ["x", "y"], "p3": ["x"], "p5": ["good", "good"]}


@dataclass
class Desk:
    """A store with samples and questions about them, and whoever answers."""

    place: Path

    def __post_init__(self) -> None:
        self.storage = Storage(url=f"file://{self.place}/store")
        writer = ArtifactWriter(open_store(self.storage), ArtifactKind.SAMPLES, "a" * 64)
        rows = [row for prompt, texts in TEXTS.items() for row in _samples(prompt, texts)]
        pq.write_table(pa.Table.from_pylist(rows, schema=SAMPLES), self.place / "samples.parquet")
        writer.add_file(self.place / "samples.parquet", "samples.parquet")
        self.samples = writer.seal(stage=StageName.SAMPLE, rows=len(rows)).ref
        work = AskWork(samples=self.samples, pairs_per_prompt=1)
        asked = ask.run(context_of(config_of(work, self.storage), self.place / "ask")).artifact
        assert asked is not None
        self.asked = asked
        folder = open_artifact(open_store(self.storage), asked).fetch(self.place / "questions")
        self.questions = pq.read_table(folder / "questions.parquet").to_pylist()

    def answered(self, answers: Answers) -> str:
        """The digest of answers that choose by what a response says."""
        rows = [
            {
                "pair_id": row["pair_id"],
                "annotator": str(who),
                "choice": "tie" if said == "tie" else "A" if row["response_a"].startswith(said) else "B",
            }
            for row in self.questions
            for who, said in enumerate(answers.get(row["prompt_id"], []))
        ]
        return self.put(rows)

    def put(self, rows: list[dict[str, Any]]) -> str:
        pq.write_table(pa.Table.from_pylist(rows), self.place / "answers.parquet")
        content = (self.place / "answers.parquet").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        open_store(self.storage).put(annotations_key(digest), content)
        return digest

    def label(self, digest: str, shards: int = 1, **fields: Any) -> tuple[StageResult, list[dict[str, Any]]]:
        work = LabelWork(
            samples=self.samples,
            labeler=Labeler(type=LabelerType.HUMAN, human=Human(annotators_per_pair=2)),
            label=Label.model_validate({"minYield": 0.0, **fields}),
            completions_per_prompt=2,
            questions=self.asked,
            annotations=digest,
        )
        config = config_of(work, self.storage, shards=shards)
        *_, last = [label.run(context_of(config, self.place / f"label-{shards}-{shard}", shard)) for shard in range(shards)]
        assert last.artifact is not None
        folder = open_artifact(open_store(self.storage), last.artifact).fetch(self.place / f"labels-{last.artifact.digest[:8]}")
        table = pa.concat_tables([pq.read_table(file) for file in sorted(folder.rglob("*.parquet"))])
        assert table.schema.equals(LABELS)
        return last, sorted(table.to_pylist(), key=lambda row: row["prompt_id"])


def _samples(prompt: str, texts: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": prompt,
            "prompt_ids": [1, 2],
            "messages": [{"role": "user", "content": f"{prompt}?"}],
            "completion_index": index,
            "completion_ids": [10 + index],
            "text": text,
            "logps": [-1.0],
            "finish_reason": "length" if text.endswith("…") else "stop",
            "iterate": 0,
            "temperature": 1.0,
            "template_hash": "0" * 16,
        }
        for index, text in enumerate(texts)
    ]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_what_most_chose_is_a_pair_and_the_rest_is_counted_by_its_reason(desk: Desk) -> None:
    result, rows = desk.label(desk.answered(GOOD))
    pairs = {row["prompt_id"]: (row["chosen_index"], row["rejected_index"], row["chosen_ids"]) for row in rows}
    assert pairs == {"p0": (0, 1, [10]), "p1": (1, 0, [11]), "p5": (0, 1, [10])}
    assert {(row["chosen_score"], row["rejected_score"], len(row["scores"])) for row in rows} == {(1.0, 0.0, 0)}
    assert result.counts == {
        "prompts": 6, "promptsIncomplete": 0, "promptsPaired": 3, "pairs": 3,
        "promptsTied": 1, "pairsTied": 1, "promptsUnanswered": 1, "pairsUnanswered": 1, "promptsOfEqualResponses": 1,
        "answers": 10, "answersAsMajority": 7,
    }  # fmt: skip
    assert (result.metrics[Metric.YIELD].value, result.metrics[Metric.PAIRS].value) == (0.5, 3)


def test_it_gives_the_same_pairs_whatever_the_shards(tmp_path: Path) -> None:
    results = []
    for shards in (1, 2):
        (tmp_path / str(shards)).mkdir()
        desk = Desk(tmp_path / str(shards))
        result, rows = desk.label(desk.answered(GOOD), shards)
        results.append((rows, result.counts, result.metrics))
    assert results[0] == results[1]


@pytest.mark.parametrize("how", ["RejectedOnly", "Drop"])
def test_a_cut_response_that_people_chose_is_kept_from_being_chosen_where_somebody_says_so(desk: Desk, how: str) -> None:
    result, rows = desk.label(desk.answered(GOOD), pairing={"lengthStopped": how})
    assert [row["prompt_id"] for row in rows] == ["p0", "p1"]
    assert (result.counts["pairsLengthStopped"], result.counts["promptsLengthStopped"]) == (1, 1)


def test_too_few_pairs_end_the_stage_with_what_became_of_the_questions(desk: Desk) -> None:
    with pytest.raises(ConfigurationProblem, match=r"promptsUnanswered 1.*it waits for answers to the same questions"):
        desk.label(desk.answered(GOOD), minYield=0.6)


def test_answers_that_are_gone_or_are_others_are_told_apart_from_those_that_were_imported(desk: Desk) -> None:
    digest = desk.answered(GOOD)
    store = open_store(desk.storage)
    store.put(annotations_key(digest), b"something else")
    with pytest.raises(ConfigurationProblem, match="are not those that were imported"):
        desk.label(digest)
    store.delete([annotations_key(digest)])
    with pytest.raises(ConfigurationProblem, match=r"are gone. Import the same answers again"):
        desk.label(digest)


def test_answers_to_other_questions_make_no_labels(desk: Desk) -> None:
    with pytest.raises(ConfigurationProblem, match="answers 1 pairs that are not in the questions"):
        desk.label(desk.put([{"pair_id": "0" * 32, "annotator": "a", "choice": "A"}]))
