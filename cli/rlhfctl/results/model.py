"""What a report says, gathered: nothing here reads a store or writes HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf_api.conventions.annotations import Tally
from rlhf_api.metrics import Metric, MetricValue


@dataclass(frozen=True)
class Iterate:
    """pi_t as evaluated. `metrics` holds those of its iteration's stages too."""

    number: int
    metrics: Mapping[Metric, MetricValue]
    best: bool = False
    discarded: bool = False

    @property
    def name(self) -> str:
        return f"π{self.number}"


@dataclass(frozen=True)
class Curve:
    """One TRL key over the steps of one training."""

    iteration: int
    key: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Example:
    """A validation prompt with the best iterate's response and pi_0's."""

    prompt_id: str
    prompt: str
    response: str
    initial_response: str | None
    judge: float
    initial_judge: float | None
    reward: float | None


@dataclass(frozen=True)
class TestFigure:
    """One decoding (sampled or greedy) of one iterate on the test prompts."""

    iterate: int
    prompts: int
    decoding: str
    judge_mean: MetricValue | None
    gain_vs_initial: MetricValue | None

    __test__ = False


@dataclass(frozen=True)
class BenchmarkFigure:
    """One metric of one task or group, of one iterate."""

    iterate: int
    task: str
    metric: str
    value: float
    stderr: float | None
    shots: int | None
    samples: int
    of_samples: int
    truncated: int
    member: bool = False
    """Of a group that is among the figures too."""


@dataclass(frozen=True)
class Accuracy:
    """Of a trained reward model on some of the pairs that are held out. by_length: of preferring the longer response instead."""

    group: str
    """Whole, Length or Subset."""
    name: str
    pairs: int
    accuracy: MetricValue
    by_length: float


@dataclass(frozen=True)
class Calibration:
    """Of a bin of predictions from `lower` on; None where there are none."""

    lower: float
    predictions: int
    predicted: float | None
    observed: float | None


@dataclass(frozen=True)
class HeldOutFigures:
    """Of a reward model that the run trained: the training reward, or the judge."""

    prompts: int
    mean_of_subsets: float
    expected_calibration_error: float
    accuracies: tuple[Accuracy, ...]
    calibration: tuple[Calibration, ...]


@dataclass(frozen=True)
class PeopleFigures:
    """What people answered in an iteration. pairs: that they were asked about."""

    iteration: int
    pairs: int
    tally: Tally


@dataclass(frozen=True)
class StageTime:
    """A stage of the run (`iteration` 0) or of an iteration."""

    iteration: int
    stage: str
    seconds: float
    attempts: int
    found: bool


@dataclass(frozen=True)
class Count:
    """How many of what a stage read, kept or dropped, by its own name for it."""

    iteration: int
    stage: str
    name: str
    number: int


@dataclass(frozen=True)
class LineageNode:
    """One artifact, or a source from outside (no digest)."""

    label: str
    location: str
    digest: str
    inputs: tuple[LineageNode, ...] = ()
    repeated: bool = False
    """Its inputs are shown where it first appears."""


@dataclass(frozen=True)
class GateVerdictRow:
    iteration: int
    gate: str
    verdict: str
    action: str
    message: str


@dataclass(frozen=True)
class Report:
    """Everything the page shows. What could not be read is named in `missing`, one sentence each."""

    name: str
    namespace: str
    phase: str
    message: str
    started: str
    ended: str
    seconds: float | None
    iterations_planned: int
    selection_metric: str
    iterates: tuple[Iterate, ...]
    curves: tuple[Curve, ...]
    examples: tuple[Example, ...]
    tests: tuple[TestFigure, ...]
    benchmarks: tuple[BenchmarkFigure, ...]
    held_out: HeldOutFigures | None
    judge_held_out: HeldOutFigures | None
    people: tuple[PeopleFigures, ...]
    times: tuple[StageTime, ...]
    counts: tuple[Count, ...]
    gates: tuple[GateVerdictRow, ...]
    lineage: LineageNode | None
    checkpoint_url: str
    manifest: Mapping[str, Any]
    missing: tuple[str, ...]

    @property
    def best(self) -> Iterate | None:
        return next((iterate for iterate in self.iterates if iterate.best), None)
