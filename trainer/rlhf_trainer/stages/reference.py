"""reference: log-probs of every pair under the reference, by the trainer's own forward. Computed once, read by every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rlhf_api.stage import ReferenceWork, StageResult
from rlhf_trainer.data.examples import Examples
from rlhf_trainer.data.parquet import REFERENCE_LOGPS
from rlhf_trainer.data.preferences import OFFLINE, Key, Limits, OfflinePairs, PairExample, Pairs, offline_counts, stem
from rlhf_trainer.forward.logps import ScoredBatch, score_examples
from rlhf_trainer.forward.rows import Packing
from rlhf_trainer.models.folder import model_folder, trusts
from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.result import log_counts, model_inputs
from rlhf_trainer.runtime.sharding import commit_and_seal, is_committed, shard_of
from rlhf_trainer.training.prepared.artifact import prepared_offline

#: Pairs that are packed together and held as lists: so many are as like in length as all would be.
_WINDOW = 4096


def run(context: StageContext) -> StageResult:
    work = work_of(context, ReferenceWork)
    inputs = [*model_inputs(work.reference), *(part.labels for part in work.data)]
    if is_committed(context):
        return commit_and_seal(context, None, inputs=inputs)
    limits = Limits.of(work)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder, trust = model_folder(context, work.reference.model), trusts(work.reference.model)
    model = load_causal_lm(folder, TORCH_DTYPE[work.reference.dtype], trust_remote_code=trust).to(device)
    files: dict[str, Path] = {}
    counts: dict[str, int] = {"pairs": 0}
    for number, pairs, own in _sets(context, work, limits):
        rows = _score(context, model, pairs, device)
        file = context.scratch / f"{stem(number)}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=REFERENCE_LOGPS), file)
        files[stem(number)] = file
        counts["pairs"] += len(rows)
        if context.shard == 0:
            counts |= {name: counts.get(name, 0) + count for name, count in own.items()}
    log_counts("reference", counts)
    return commit_and_seal(context, files, rows=counts["pairs"], counts=counts, inputs=inputs)


def _sets(context: StageContext, work: ReferenceWork, limits: Limits) -> Iterator[tuple[int, Pairs | OfflinePairs, dict[str, int]]]:
    """The number of each data set, its pairs, and counts of what was read."""
    if work.offline is not None:
        found = prepared_offline(context, work.offline, limits)
        yield OFFLINE, OfflinePairs(Examples(found.file)), offline_counts(found.counts)
    for part in work.data:
        pairs = Pairs(context.artifact(part.labels).cached(context.scratch / "inputs"), limits)
        yield part.iteration, pairs, pairs.counts


def _score(context: StageContext, model: Any, pairs: Pairs | OfflinePairs, device: torch.device) -> list[dict[str, Any]]:
    """Of this shard's pairs, ordered by key."""
    own = shard_of(range(len(pairs)), context.shard, context.config.execution.shards)
    rows: list[dict[str, Any]] = []
    for begin in range(0, len(own), _WINDOW):
        window = [pairs[index] for index in own[begin : begin + _WINDOW]]
        packing = Packing.choose(max(pair.example.tokens for pair in window), device, context.config.execution.token_budget)
        for batch in _score_window(model, window, packing):
            rows += batch
            context.progress.update(len(rows), len(own), "pairs")
    return sorted(rows, key=lambda row: (row["prompt_id"], row["chosen_index"], row["rejected_index"]))


def _score_window(model: Any, pairs: list[PairExample], packing: Packing) -> Iterator[list[dict[str, Any]]]:
    key_of = {id(pair.example): pair.key for pair in pairs}
    for scored in score_examples(model, [pair.example for pair in pairs], packing):
        yield [_row(key_of[id(example)], scored, 2 * number) for number, example in enumerate(scored.examples)]


def _row(key: Key, scored: ScoredBatch, chosen: int) -> dict[str, Any]:
    """`chosen`: the place of the pair's chosen completion among the batch's; the rejected one stands behind it."""
    prompt_id, chosen_index, rejected_index = key
    return {
        "prompt_id": prompt_id,
        "chosen_index": chosen_index,
        "rejected_index": rejected_index,
        "chosen_logps": scored.logps[chosen],
        "rejected_logps": scored.logps[chosen + 1],
        "chosen_tokens": int(scored.tokens[chosen]),
        "rejected_tokens": int(scored.tokens[chosen + 1]),
    }
