"""reference: log-probs of every pair under the reference, by the trainer's own forward. Computed once, read by every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rlhf_api.stage import ReferenceWork, StageResult
from rlhf_trainer.data.parquet import REFERENCE_LOGPS
from rlhf_trainer.data.preferences import Limits, PairExample, read_pairs, stem
from rlhf_trainer.forward.logps import score_examples
from rlhf_trainer.forward.rows import Packing
from rlhf_trainer.models.folder import model_folder, trusts
from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.result import log_counts, model_inputs
from rlhf_trainer.runtime.sharding import commit_and_seal, is_committed, shard_of


def run(context: StageContext) -> StageResult:
    work = work_of(context, ReferenceWork)
    inputs = [*model_inputs(work.reference), *(part.labels for part in work.data)]
    if is_committed(context):
        return commit_and_seal(context, None, inputs=inputs)
    limits = Limits(work.max_length, work.max_prompt_length, work.overlong)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder, trust = model_folder(context, work.reference.model), trusts(work.reference.model)
    model = load_causal_lm(folder, TORCH_DTYPE[work.reference.dtype], trust_remote_code=trust).to(device)
    files: dict[str, Path] = {}
    counts: dict[str, int] = {"pairs": 0}
    for part in work.data:
        pairs, read = read_pairs(context.artifact(part.labels).cached(context.scratch / "inputs"), limits)
        own = shard_of(pairs, context.shard, context.config.execution.shards)
        rows = _score(context, model, list(own), device)
        file = context.scratch / f"{stem(part.iteration)}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=REFERENCE_LOGPS), file)
        files[stem(part.iteration)] = file
        counts["pairs"] += len(rows)
        if context.shard == 0:
            counts |= {name: counts.get(name, 0) + count for name, count in read.items()}
    log_counts("reference", counts)
    return commit_and_seal(context, files, rows=counts["pairs"], counts=counts, inputs=inputs)


def _score(context: StageContext, model: Any, pairs: list[PairExample], device: torch.device) -> list[dict[str, Any]]:
    longest = max((pair.example.tokens for pair in pairs), default=1)
    packing = Packing.choose(longest, device, context.config.execution.token_budget)
    key_of = {id(pair.example): pair.key for pair in pairs}
    rows: list[dict[str, Any]] = []
    for scored in score_examples(model, [pair.example for pair in pairs], packing):
        for number, example in enumerate(scored.examples):
            prompt_id, chosen, rejected = key_of[id(example)]
            rows.append(
                {
                    "prompt_id": prompt_id,
                    "chosen_index": chosen,
                    "rejected_index": rejected,
                    "chosen_logps": scored.logps[2 * number],
                    "rejected_logps": scored.logps[2 * number + 1],
                    "chosen_tokens": int(scored.tokens[2 * number]),
                    "rejected_tokens": int(scored.tokens[2 * number + 1]),
                }
            )
        context.progress.update(len(rows), len(pairs), "pairs")
    return sorted(rows, key=lambda row: (row["prompt_id"], row["chosen_index"], row["rejected_index"]))
