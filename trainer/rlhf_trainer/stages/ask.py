"""ask: which pairs of responses people are asked about. Whose they are, and what anything scored them, is not told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_api.stage import AskWork, StageResult
from rlhf_api.words import ArtifactKind
from rlhf_store import ArtifactWriter
from rlhf_trainer.data.messages import tools_of
from rlhf_trainer.data.parquet import QUESTIONS, TOOLS
from rlhf_trainer.labelers.people.questions import draw_questions, pair_id
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.result import canonical_work, libraries, log_counts, result_of

_COLUMNS = ("prompt_id", "messages", "completion_index", "text")


def run(context: StageContext) -> StageResult:
    """Raises ConfigurationProblem where no prompt has two different responses."""
    work = work_of(context, AskWork)
    counts = {"prompts": 0, "promptsOfEqualResponses": 0, "questions": 0}
    rows = [*_questions(context, work, counts)]
    if not rows:
        raise ConfigurationProblem(
            f"No prompt of {counts['prompts']} has two different responses, so there is nothing to ask. Raise the temperature of "
            "sample.mixture, or sample.completionsPerPrompt."
        )
    log_counts("asked", counts)
    file = context.scratch / "questions.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=QUESTIONS), file)
    lines = context.scratch / "questions.jsonl"
    with lines.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(_line(row), ensure_ascii=False) + "\n" for row in rows)
    writer = ArtifactWriter(context.store, ArtifactKind.QUESTIONS, context.config.fingerprint)
    writer.add_file(file, "questions.parquet")
    writer.add_file(lines, "questions.jsonl")
    sealed = writer.seal(
        stage=context.config.stage,
        inputs=[work.samples],
        config=canonical_work(context.config),
        rows=len(rows),
        counts=counts,
        libraries=libraries(),
    )
    return result_of(context.store, context.config, sealed)


def _questions(context: StageContext, work: AskWork, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Rows of QUESTIONS, by prompt. `counts` gets what became of each prompt."""
    config = context.config
    for prompt, own in groupby(_samples(context, work), key=lambda row: row["prompt_id"]):
        by_index = {row["completion_index"]: row for row in own}
        texts = {index: row["text"] for index, row in by_index.items()}
        drawn = draw_questions(texts, work.pairs_per_prompt, config.seed, config.iteration or 0, prompt)
        counts["prompts"] += 1
        counts["promptsOfEqualResponses"] += not drawn
        counts["questions"] += len(drawn)
        for question in drawn:
            row = by_index[question.a]
            yield {
                "pair_id": pair_id(config.fingerprint, prompt, question),
                "prompt_id": prompt,
                "messages": row["messages"],
                "tools": row.get(TOOLS.name),
                "response_a": texts[question.a],
                "response_b": texts[question.b],
                "index_a": question.a,
                "index_b": question.b,
            }


def _samples(context: StageContext, work: AskWork) -> list[dict[str, Any]]:
    """By prompt: no order of shards or files is left in it."""
    folder = context.artifact(work.samples).cached(context.scratch / "inputs")
    rows: list[dict[str, Any]] = []
    for file in sorted(folder.rglob("*.parquet")):
        beside = [TOOLS.name] if TOOLS.name in pq.read_schema(file).names else []
        rows += pq.read_table(file, columns=[*_COLUMNS, *beside]).to_pylist()
    return sorted(rows, key=lambda row: (row["prompt_id"], row["completion_index"]))


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """For tools that read JSON: what the policy could call as it was given, and nothing where it could call nothing."""
    shown = {name: value for name, value in row.items() if name != "tools"}
    return shown if row["tools"] is None else {**shown, "tools": tools_of(row["tools"])}
