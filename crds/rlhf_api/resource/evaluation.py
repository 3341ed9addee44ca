"""`spec.evaluate`, `spec.selection`, `spec.gates`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from rlhf_api.base import Count, EntryName, Model, Positive, WholeNumber
from rlhf_api.metrics import BenchmarkMetric, Metric

from .compute import Pod, Queue
from .labeler import Labeler


class Against(StrEnum):
    INITIAL = "Initial"
    PREVIOUS = "Previous"


class EvaluationSampling(Model):
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] = 0.7
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling; 1.0: off."""


class LmEval(Model):
    """Benchmarks by lm-evaluation-harness, of each iterate: beside the run and reported, unless a gate reads them."""

    tasks: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=128)]], Field(max_length=32)] = []
    """Tasks of lm-evaluation-harness: its names, or paths of task files (.yaml) that the stages see."""
    num_fewshot: WholeNumber | None = None
    """Examples in front of each question; absent: each task's own number."""
    limit: Count | None = None
    """The first so many questions of each task; absent: all. For trying out: such values compare with nobody's."""
    apply_chat_template: bool = True
    """Questions are conversations under the policy's template; false: plain text, as base models are measured."""
    max_length: Count | None = None
    """Tokens of the context; absent: the model's own. What is longer loses its beginning, and is counted."""


class Evaluate(Model):
    judge: Labeler
    """The labeler that compares responses, with the fields of reward; it must not be the training reward."""
    allow_training_reward: bool = False
    """Let the judge be the training reward, or a descendant of it."""
    against: Annotated[list[Against], Field(min_length=1, max_length=2)] = [Against.INITIAL, Against.PREVIOUS]
    """With whom the iterate is compared."""
    sampling: EvaluationSampling = EvaluationSampling()
    """How the compared responses are sampled."""
    lm_eval: LmEval = LmEval()
    """Benchmarks beside the judge."""
    pod: Pod | None = None
    queue: Queue | None = None


class Mode(StrEnum):
    MAX = "Max"
    MIN = "Min"


class Selection(Model):
    """Which iterate is best."""

    metric: Metric = Metric.WIN_RATE_VS_INITIAL
    """The metric by which iterates are compared; measured for pi_0 too."""
    mode: Mode = Mode.MAX
    """Whether more or less of the metric is better."""


class GateAction(StrEnum):
    WARN = "Warn"
    STOP = "Stop"
    PAUSE = "Pause"
    ROLLBACK = "Rollback"


class Plateau(Model):
    """Trips when the best of the last `iterations` values is less than `minDelta` better than the best before them."""

    iterations: Annotated[int, Field(ge=1, le=50)]
    """k: how many of the newest iterations are looked at."""
    min_delta: Positive
    """The improvement that counts, in the metric's unit."""


class Gate(Model):
    """A condition on a metric or a benchmark, looked at after each iteration: exactly one of min, max, plateau, maxDrop."""

    name: EntryName
    """What approvals and status call it."""
    metric: Metric | None = None
    """The metric that is looked at."""
    benchmark: BenchmarkMetric | None = None
    """Instead of a metric: a figure of evaluate.lmEval. The run then waits for the benchmark of each iterate, and fails with it."""
    min: float | None = None
    """Trips when the upper bound of the metric (its value, where it has no interval) is below."""
    max: float | None = None
    """Trips when the lower bound is above."""
    plateau: Plateau | None = None
    """Trips when the metric has stopped to improve."""
    max_drop: Annotated[float, Field(ge=0.0)] | None = None
    """Of a benchmark, in its own unit (0.03 of an accuracy is 3 %): trips when the iterate is worse than pi_0 by more than this,
    by the lower bound of the difference."""
    action: GateAction
    """Warn: an Event. Stop: end as Succeeded with the best iterate. Pause: wait for an approval. Rollback: discard the iterate, go
    on from the best."""


def benchmarks_read_by(gates: Sequence[Gate]) -> list[BenchmarkMetric]:
    """Each once."""
    return list({(one.task, one.metric): one for gate in gates if (one := gate.benchmark) is not None}.values())


class Approval(Model):
    """Lets a paused run go on."""

    gate: EntryName
    """Name of the gate that paused the run."""
    iteration: WholeNumber
    """The iteration that it paused in."""
