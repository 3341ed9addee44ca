"""A whole run whose reward is people, through rlhfctl alone: it waits, is answered, goes on, and learns what they chose."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from rlhf_api.resource.labeler import Annotations
from rlhf_api.stage import ArtifactRef
from rlhf_api.words import ArtifactKind, Phase
from rlhf_store import open_artifact, open_store
from rlhf_trainer.quickstart import task
from rlhf_trainer.quickstart.world import make_world
from rlhfctl.exits import Exit
from support.mini import NAME, Case, read_manifest, stages_of
from support.rlhfctl import Done, rlhfctl
from support.s3 import S3Server
from support.stages import TINY

pytestmark = [pytest.mark.engine, pytest.mark.s3, pytest.mark.processes]

HUMAN = {"pairsPerPrompt": 2, "annotatorsPerPair": 2, "minAnswered": 0.5, "instructions": "Prefer what does as it is told."}
Judge = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="module")
def case(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("people")
    manifest = read_manifest(make_world(folder / "world", 0, TINY))
    spec = manifest["spec"]
    del spec["sft"]
    storage = s3_server.storage(prefix=folder.name)
    spec |= {"storage": storage.to_wire(), "iterations": 2, "reward": {"type": "Human", "human": HUMAN}}
    spec["prompts"]["perIteration"] = 12
    spec["sample"] |= {"shards": 1, "parallelism": 1}
    del spec["prompts"]["test"]
    # Without a reference it has two stages less.
    spec["train"] |= {"compute": {"processesPerNode": 1}, "loss": {"type": "SimPO", "beta": 2.0}}
    (folder / "run.yaml").write_text(yaml.safe_dump(manifest))
    return Case(folder, folder / "run.yaml", s3_server, storage)


@pytest.fixture(scope="module")
def waits(case: Case) -> list[Done]:
    """What each `run` said that ended because people are to answer; the last has succeeded."""
    return [*_answered(case)]


def _answered(case: Case) -> Iterator[Done]:
    for iteration in (1, 2):
        done = case.run()
        yield done
        assert done.code == Exit.RUN_FAILED, done.out
        assert case.status().phase is Phase.PAUSED, done.out
        _paste(case, _command(done, "annotations export"))
        rows = _questions(case.folder / f"{NAME}-questions-{iteration}")
        ann, bob = _answers(rows, "ann", _better), _answers(rows, "bob", _longer)
        (case.folder / "FILE").with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*ann, *bob)))
        said = _paste(case, _command(done, "annotations import").replace("FILE", "FILE.jsonl"))
        assert f"{len(rows)} of {len(rows)} pairs are answered" in " ".join(said.err.split())
    yield case.run()


def _command(done: Done, words: str) -> str:
    [line] = [line for line in done.out.splitlines() if words in line and "`" not in line]
    return line[line.index("rlhfctl") :]


def _paste(case: Case, command: str) -> Done:
    done = rlhfctl(*shlex.split(command)[1:], cwd=case.folder)
    assert done.code == 0, done.err
    return done


def _questions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]


def _answers(rows: list[dict[str, Any]], who: str, choose: Judge) -> list[dict[str, str]]:
    return [{"pair_id": row["pair_id"], "annotator": who, "choice": choose(row)} for row in rows]


def _better(row: dict[str, Any]) -> str:
    a, b = (task.grade(row["messages"], row[name]) for name in ("response_a", "response_b"))
    return "A" if a > b else "B" if b > a else "tie"


def _longer(row: dict[str, Any]) -> str:
    return "A" if len(row["response_a"]) >= len(row["response_b"]) else "B"


def test_it_waits_in_each_iteration_and_then_succeeds(case: Case, waits: list[Done]) -> None:
    assert [done.code for done in waits] == [Exit.RUN_FAILED, Exit.RUN_FAILED, 0]
    assert "waits for people's answers" in " ".join(waits[0].out.split())
    assert case.status().phase is Phase.SUCCEEDED
    assert {"sample-2", "ask-2", "label-2", "train-2", "evaluate-2"} <= stages_of(case.status()).keys()
    assert len(case.attempts("sample-1")) == 1, "what was finished is not done again"


@pytest.mark.usefixtures("waits")
def test_a_pair_is_labelled_as_both_chose_and_no_other(case: Case) -> None:
    store = open_store(case.storage)
    for iteration in (1, 2):
        rows = pq.read_table(case.folder / f"{NAME}-questions-{iteration}" / "questions.parquet").to_pylist()
        agreed = {
            (row["prompt_id"], *((row["index_a"], row["index_b"])[:: 1 if choice == "A" else -1]))
            for row in rows
            if (choice := _better(row)) == _longer(row)
        }
        found = stages_of(case.status())[f"label-{iteration}"].artifact
        assert found is not None
        labels = open_artifact(store, ArtifactRef(kind=ArtifactKind.LABELS, fingerprint=found.fingerprint, digest=found.digest))
        folder = labels.cached(case.folder / "labels")
        table = [row for file in sorted(folder.rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]
        assert {(row["prompt_id"], row["chosen_index"], row["rejected_index"]) for row in table} == agreed
        assert agreed, "otherwise nothing is compared"


@pytest.mark.usefixtures("waits")
def test_its_report_says_what_they_answered(case: Case) -> None:
    entries = yaml.safe_load((case.state / "runs" / NAME / "run.yaml").read_text())["spec"]["annotations"]
    assert [Annotations.model_validate(entry).iteration for entry in entries] == [1, 2]
    page = (case.state / "runs" / NAME / "report.html").read_text()
    assert "<h2>People</h2>" in page
    assert page.count("<td>ann</td>") == 2
