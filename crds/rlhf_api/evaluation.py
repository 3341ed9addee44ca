"""`spec.evaluate`, `spec.selection`, `spec.gates`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from .base import EntryName, Model, Positive, WholeNumber
from .compute import Pod, Queue
from .labeler import Labeler
from .metrics import Metric


class Against(StrEnum):
    INITIAL = "Initial"
    PREVIOUS = "Previous"


class EvaluationSampling(Model):
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] = 0.7
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class LmEval(Model):
    tasks: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=128)]], Field(max_length=32)] = []
    """Tasks of lm-evaluation-harness."""


class Evaluate(Model):
    judge: Labeler
    allow_training_reward: bool = False
    """Let the judge be the training reward, or a descendant of it."""
    against: Annotated[list[Against], Field(min_length=1, max_length=2)] = [Against.INITIAL, Against.PREVIOUS]
    sampling: EvaluationSampling = EvaluationSampling()
    lm_eval: LmEval = LmEval()
    pod: Pod | None = None
    queue: Queue | None = None


class Mode(StrEnum):
    MAX = "Max"
    MIN = "Min"


class Selection(Model):
    """Which iterate is best."""

    metric: Metric = Metric.WIN_RATE_VS_INITIAL
    mode: Mode = Mode.MAX


class GateAction(StrEnum):
    WARN = "Warn"
    STOP = "Stop"
    PAUSE = "Pause"
    ROLLBACK = "Rollback"


class Plateau(Model):
    """Trips when the best of the last `iterations` values is less than `minDelta` better than the best before them."""

    iterations: Annotated[int, Field(ge=1, le=50)]
    min_delta: Positive


class Gate(Model):
    """A condition on a metric, looked at after each iteration: exactly one of min, max, plateau."""

    name: EntryName
    metric: Metric
    min: float | None = None
    """Trips when the upper bound of the metric (its value, where it has no interval) is below."""
    max: float | None = None
    """Trips when the lower bound is above."""
    plateau: Plateau | None = None
    action: GateAction


class Approval(Model):
    """Lets a paused run go on."""

    gate: EntryName
    iteration: WholeNumber
