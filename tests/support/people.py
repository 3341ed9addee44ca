"""A run that waits for people, and rlhfctl as they use it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rlhf_api.resource.status import ArtifactStatus, Condition, ConditionStatus, IterationStatus, StageStatus
from rlhf_api.resource.storage import Storage
from rlhf_api.words import ArtifactKind, ConditionType, Phase, Reason, StageName
from rlhf_store import ArtifactWriter, open_store
from support import example_runs
from support.rlhfctl import Done, rlhfctl

PAIRS = ["a" * 32, "b" * 32, "c" * 32]
Row = tuple[str, str, str]
ALL: list[Row] = [(PAIRS[0], "ann", "A"), (PAIRS[1], "ann", "B"), (PAIRS[2], "ann", "tie"), (PAIRS[0], "bob", "A")]


def waiting(place: Path, **human: Any) -> Path:
    """`asking` waits for the answers to three questions of iteration 1; the state folder, and its store beside it."""
    store = f"file://{place}/store"
    rows = [{"pair_id": pair, "messages": [], "response_a": "one\u2028line", "response_b": "x"} for pair in PAIRS]
    writer = ArtifactWriter(open_store(Storage(url=store)), ArtifactKind.QUESTIONS, "f" * 64)
    writer.add_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(), "questions.jsonl")
    writer.add_bytes(b"parquet", "questions.parquet")
    ref = writer.seal(stage=StageName.ASK, counts={"questions": len(PAIRS)}).ref
    ask = StageStatus(
        name=StageName.ASK,
        phase=Phase.SUCCEEDED,
        artifact=ArtifactStatus(url=f"{store}/questions/{'f' * 64}", digest=ref.digest, fingerprint=ref.fingerprint),
    )
    base = example_runs.paused("asking", store).status
    assert base is not None
    told = Condition(
        type=ConditionType.PROGRESSING,
        status=ConditionStatus.FALSE,
        reason=Reason.AWAITING_ANNOTATIONS,
        last_transition_time=example_runs.START,
    )
    first = IterationStatus(number=1, stages=[ask])
    status = base.model_copy(update={"iterations": [first], "message": "it waits", "conditions": [told]})
    example_runs.save(place, example_runs.run("asking", store, status, reward={"type": "Human", "human": human}))
    return place


def spec_of(state: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((state / "runs" / "asking" / "run.yaml").read_text())["spec"]
    return found


def write_answers(file: Path, rows: Sequence[Row]) -> Path:
    named = [dict(zip(("pair_id", "annotator", "choice"), row, strict=True)) for row in rows]
    match file.suffix:
        case ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in named))
        case ".csv":
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, ["annotator", "note", "choice", "pair_id"])
                writer.writeheader()
                writer.writerows({**row, "note": 'said "so",\nand more'} for row in named)
        case _:
            pq.write_table(pa.Table.from_pylist(named), file)
    return file


def imported(state: Path, *files: Path, partial: bool = False) -> Done:
    more = ["--partial"] if partial else []
    return rlhfctl("annotations", "import", "asking", *map(str, files), "--iteration", "1", "--state", str(state), *more)
