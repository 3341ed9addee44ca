"""label: score every completion of the shard's prompts, make pairs, count what was dropped and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.stage import LabelWork, StageResult
from rlhf_trainer.data.messages import tools_of
from rlhf_trainer.data.parquet import ANSWER, LABELS, TOOLS, Lists
from rlhf_trainer.labelers.base import Response, counted
from rlhf_trainer.labelers.load import load_labeler
from rlhf_trainer.labelers.pairing import BELOW_REWARD_STD, Pair, Scored, make_pairs
from rlhf_trainer.labelers.people.answers import People
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.result import log_counts, metric, model_inputs
from rlhf_trainer.runtime.sharding import commit_and_seal, is_committed, shard_of

#: Labels that are written at a time.
_BATCH = 1024
_IDS = ("prompt_ids", "completion_ids")


@dataclass(frozen=True)
class _Samples:
    """Rows of each prompt by completion index, prompts by id: no order of shards or files is left in it.

    A row has no ids, and its `place` among the lists of them.
    """

    prompts: list[list[dict[str, Any]]]
    prompt_ids: Lists
    completion_ids: Lists


def run(context: StageContext) -> StageResult:
    """Raises ConfigurationProblem when the yield is below label.minYield, with the counts by reason."""
    work = work_of(context, LabelWork)
    inputs = [work.samples, *([work.questions] if work.questions is not None else []), *model_inputs(work.reward_model)]
    if is_committed(context):
        return commit_and_seal(context, None, inputs=inputs, check=lambda totals: _metrics(totals, work))
    samples = _samples(context, work)
    people = People.load(context, work) if work.labeler.human is not None else None
    # Who answers compares two responses, whatever others there are.
    complete = [rows for rows in samples.prompts if people is not None or len(rows) == work.completions_per_prompt]
    counts = {"prompts": len(samples.prompts), "promptsIncomplete": len(samples.prompts) - len(complete), "pairs": 0}
    scores = {} if people is not None else _scores(context, work, [row for rows in complete for row in rows], counts)
    file = context.scratch / "labels.parquet"
    with pq.ParquetWriter(file, LABELS) as writer:
        for begin in range(0, len(complete), _BATCH):
            labels = [
                *_labels(context, work, samples, complete[begin : begin + _BATCH], scores if people is None else people, counts)
            ]
            writer.write_table(pa.Table.from_pylist(labels, schema=LABELS))
    log_counts("labeled", counts)
    return commit_and_seal(
        context, {"labels": file}, rows=counts["pairs"], counts=counts, inputs=inputs, check=lambda totals: _metrics(totals, work)
    )


def _labels(
    context: StageContext,
    work: LabelWork,
    samples: _Samples,
    prompts: Sequence[list[dict[str, Any]]],
    scores: dict[int, float] | People,
    counts: dict[str, int],
) -> Iterator[dict[str, Any]]:
    """Rows of LABELS. `counts` gets what became of each prompt."""
    for rows in prompts:
        stopped = {row["completion_index"]: row["finish_reason"] == "stop" for row in rows}
        if isinstance(scores, People):
            own = []
            paired = scores.pairs(rows[0]["prompt_id"], stopped, counts)
        else:
            own = [scores[id(row)] for row in rows]
            scored = [Scored(index, score, stopped[index]) for index, score in zip(stopped, own, strict=True)]
            paired = make_pairs(scored, work.label.pairing, context.config.seed, rows[0]["prompt_id"])
        reason = paired.dropped or "promptsPaired"
        counts[reason] = counts.get(reason, 0) + 1
        by_index = {row["completion_index"]: row for row in rows}
        counts["pairs"] += len(paired.pairs)
        yield from (_label(pair, by_index, samples, own, context.config.iteration or 0) for pair in paired.pairs)


def _samples(context: StageContext, work: LabelWork) -> _Samples:
    """Of this shard's prompts."""
    folder = context.artifact(work.samples).cached(context.scratch / "inputs")
    files = sorted(folder.rglob("*.parquet"))
    every = {name for file in files for name in pq.read_table(file, columns=["prompt_id"])["prompt_id"].to_pylist()}
    own = pa.array(shard_of(sorted(every), context.shard, context.config.execution.shards), pa.string())
    table = pa.concat_tables([_rows_of(file, own) for file in files])
    rows = [row | {"place": place} for place, row in enumerate(table.drop_columns([*_IDS]).to_pylist())]
    rows.sort(key=lambda row: (row["prompt_id"], row["completion_index"]))
    prompts = [list(group) for _, group in groupby(rows, key=lambda row: row["prompt_id"])]
    return _Samples(prompts, *(Lists(table.column(name)) for name in _IDS))


def _rows_of(file: Path, prompts: pa.Array) -> pa.Table:
    columns = ["prompt_id", *_IDS, "messages", "completion_index", "text", "finish_reason"]
    columns += [beside.name for beside in (TOOLS, ANSWER) if beside.name in pq.read_schema(file).names]
    return pq.read_table(file, columns=columns, filters=pc.field("prompt_id").isin(prompts))


def _scores(context: StageContext, work: LabelWork, rows: Sequence[dict[str, Any]], counts: dict[str, int]) -> dict[int, float]:
    """By identity of the row: the labeler's score less the length penalty. `counts` gets what the labeler counts."""
    endpoint = context.config.execution.reward_endpoint
    labeler = load_labeler(context, work.labeler, work.reward_model, work.rule_revision, endpoint)
    raw = labeler.score(
        [
            Response(
                row["messages"],
                row["text"],
                f"prompt {row['prompt_id']}, completion {row['completion_index']}",
                tools_of(row.get(TOOLS.name)),
                row.get(ANSWER.name),
            )
            for row in rows
        ],
        lambda done: context.progress.update(done, len(rows), "responses"),
    )
    counts |= counted(labeler)
    penalty = work.label.length_penalty_per_character
    return {id(row): score - penalty * len(row["text"]) for row, score in zip(rows, raw, strict=True)}


def _label(
    pair: Pair, by_index: dict[int, dict[str, Any]], samples: _Samples, scores: list[float], iteration: int
) -> dict[str, Any]:
    chosen, rejected = by_index[pair.chosen.index], by_index[pair.rejected.index]
    return {
        "prompt_id": chosen["prompt_id"],
        "chosen_index": pair.chosen.index,
        "rejected_index": pair.rejected.index,
        "chosen_ids": samples.completion_ids[chosen["place"]],
        "rejected_ids": samples.completion_ids[rejected["place"]],
        "prompt_ids": samples.prompt_ids[chosen["place"]],
        "chosen_score": pair.chosen.score,
        "rejected_score": pair.rejected.score,
        "scores": scores,
        "iteration": iteration,
    }


def _metrics(totals: dict[str, int], work: LabelWork) -> dict[Metric, MetricValue]:
    """The yield is of what minRewardStd has selected: how many that are is meant, and whether they give pairs is not."""
    left_out = totals.get(BELOW_REWARD_STD, 0)
    share = totals.get("promptsPaired", 0) / max(1, totals.get("prompts", 0) - left_out)
    if share < work.label.min_yield or totals.get("pairs", 0) == 0:
        told = ", ".join(f"{name} {count}" for name, count in sorted(totals.items()))
        what_next = (
            "Delete the run and begin it again, with what it finds in the store: it waits for answers to the same questions."
            if work.labeler.human is not None
            else f"{_advice(totals)} These scores are not kept: delete the run and begin it again, with what it finds in the "
            "store, and every response is scored anew."
        )
        # The same responses give the same scores: another attempt would end so, too.
        raise ConfigurationProblem(
            f"Only {share:.1%} of the prompts{_selected(work, left_out)} gave a preference pair; label.minYield asks for "
            f"{work.label.min_yield:.0%} ({told}). {what_next}",
            reason="YieldTooSmall",
        )
    return {Metric.YIELD: metric(share), Metric.PAIRS: metric(totals["pairs"])}


def _selected(work: LabelWork, left_out: int) -> str:
    return (
        f" whose standard deviation is above label.pairing.minRewardStd ({work.label.pairing.min_reward_std})" if left_out else ""
    )


def _advice(totals: dict[str, int]) -> str:
    margin = totals.get("promptsBelowMargin", 0)
    if totals.get(BELOW_REWARD_STD, 0) and not margin and not totals.get("promptsPaired", 0):
        return "No prompt's scores differ so much, but for those that were left out for another reason: lower it."
    if totals.get("promptsTied", 0) and not margin and not totals.get("promptsPaired", 0):
        return "The reward gives the same score to all completions of a prompt, whatever the prompt: correct it."
    if margin:
        return "Look at the samples and the reward; a smaller label.pairing.minMargin keeps more pairs."
    return "Look at the samples and the reward."
