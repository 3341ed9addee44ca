"""What a run has finished: the facts that the plan goes by. All of it is in RLHFRunStatus, and nothing else is remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from rlhf_api.metrics import BenchmarkValue, Metric, MetricValue
from rlhf_api.resource.status import RLHFRunStatus, StageStatus
from rlhf_api.stage import ArtifactRef, StageConfig, StageResult
from rlhf_api.words import STAGE_ARTIFACT, Phase, StageName
from rlhf_operator.core.cursor import stages_of

#: Reported by stage, and summed over an iteration; every other metric comes from one stage of it.
COST_METRICS = (Metric.GPU_SECONDS, Metric.QUEUE_SECONDS, Metric.WALL_SECONDS, Metric.LOST_GPU_SECONDS)


@dataclass(frozen=True)
class StageRecord:
    """A stage that succeeded. `iteration` is None for the stages of the run; evaluate among these is pi_0's."""

    iteration: int | None
    stage: StageName
    artifact: ArtifactRef | None = None
    metrics: Mapping[Metric, MetricValue] = field(default_factory=dict)
    adopted: bool = False
    """The artifact existed: made by another run, or by an attempt that could not say so. Never this run's to remove."""
    beside: bool = False
    """No stage of the chain waited for it."""
    costs: tuple[float, ...] = ()
    """In the order of COST_METRICS; empty where they are not known, as in preflight's walk."""
    benchmarks: tuple[BenchmarkValue, ...] = ()
    """Of a benchmark, what gates read of it."""


@dataclass(frozen=True)
class History:
    """Stages that succeeded, in order."""

    records: tuple[StageRecord, ...] = ()
    finalizing: bool = False
    """finalize was begun: retention may have removed what a further iteration would need."""
    given_up: tuple[tuple[int | None, StageName], ...] = ()
    """Stages beside the chain that failed for good, or were cancelled."""

    @cached_property
    def _index(self) -> dict[tuple[int | None, StageName], StageRecord]:
        return {(record.iteration, record.stage): record for record in self.records}

    def find(self, iteration: int | None, stage: StageName) -> StageRecord | None:
        return self._index.get((iteration, stage))

    def artifact(self, iteration: int | None, stage: StageName) -> ArtifactRef | None:
        record = self.find(iteration, stage)
        return None if record is None else record.artifact

    def with_result(self, config: StageConfig, result: StageResult, *, beside: bool = False) -> History:
        """The history after `config` ended well with `result`; preflight's walk goes on with it."""
        record = StageRecord(
            config.iteration,
            config.stage,
            result.artifact,
            result.metrics,
            result.found,
            beside,
            benchmarks=tuple(result.benchmarks),
        )
        return replace(self, records=(*self.records, record))

    def benchmarks(self, iteration: int | None) -> tuple[BenchmarkValue, ...]:
        """What gates read of an iterate's benchmark; None: of pi_0's."""
        record = self.find(iteration, StageName.BENCHMARK)
        return () if record is None else record.benchmarks

    def is_over(self, iteration: int | None, stage: StageName) -> bool:
        """It succeeded, or was given up."""
        return self.find(iteration, stage) is not None or (iteration, stage) in self.given_up

    def iteration_metrics(self, iteration: int | None) -> dict[Metric, MetricValue]:
        """Of an iteration's stages of the chain, with their costs summed; None: of pi_0's evaluation.

        What is beside the chain may end after the iteration was judged, and changes nothing of that.
        """
        names = (StageName.EVALUATE,) if iteration is None else StageName
        records = [record for name in names if (record := self.find(iteration, name)) is not None and not record.beside]
        merged: dict[Metric, MetricValue] = {}
        for record in records:
            merged.update(record.metrics)
        costs = [record.costs for record in records if record.costs]
        for metric, figures in zip(COST_METRICS, zip(*costs, strict=True), strict=False):
            merged[metric] = MetricValue(value=sum(figures))
        return merged

    @property
    def chain_length(self) -> int:
        """How many stages of the chain are done: what `adoptable` counts. preflight and finalize seal nothing and are not in it."""
        return len(self._chain)

    @property
    def newest_adopted(self) -> bool:
        """Whether the newest of those stages was found, not made."""
        return bool(self._chain) and self._chain[-1].adopted

    @cached_property
    def _chain(self) -> tuple[StageRecord, ...]:
        return tuple(record for record in self.records if record.stage in STAGE_ARTIFACT and not record.beside)


def history_of(status: RLHFRunStatus | None) -> History:
    """Rebuild the history from the only state that is kept."""
    if status is None:
        return History()
    stages = list(stages_of(status))
    records = tuple(_record(number, stage) for number, stage in stages if stage.phase is Phase.SUCCEEDED)
    over = [(number, stage) for number, stage in stages if stage.beside and stage.phase.finished]
    given_up = tuple((number, stage.name) for number, stage in over if stage.phase is not Phase.SUCCEEDED)
    return History(records, any(stage.name is StageName.FINALIZE for _, stage in stages), given_up)


def _record(iteration: int | None, stage: StageStatus) -> StageRecord:
    artifact = None
    if stage.artifact is not None:
        kind = STAGE_ARTIFACT[stage.name]
        artifact = ArtifactRef(kind=kind, fingerprint=stage.artifact.fingerprint, digest=stage.artifact.digest)
    return StageRecord(
        iteration,
        stage.name,
        artifact,
        stage.metrics,
        stage.adopted,
        bool(stage.beside),
        _costs(stage),
        tuple(stage.benchmarks or ()),
    )


def _costs(stage: StageStatus) -> tuple[float, ...]:
    wall = 0.0
    if stage.start_time is not None and stage.completion_time is not None:
        wall = (stage.completion_time - stage.start_time).total_seconds()
    return (stage.gpu_seconds, stage.queue_seconds, wall, stage.lost_gpu_seconds)
