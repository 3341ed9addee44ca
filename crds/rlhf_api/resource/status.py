"""`status`: written by the operator or the local backend, by nobody else. Bounded: at most 50 iterations, 32 metrics each."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from rlhf_api.base import ATOMIC, EntryName, Model, Sha256, WholeNumber, unique_by
from rlhf_api.metrics import BenchmarkValue, Metric, MetricValue
from rlhf_api.words import STATUS_FORMAT, ConditionType, Phase, Reason, StageName

from .evaluation import GateAction

Message = Annotated[str, StringConstraints(max_length=2048)]
Metrics = Annotated[dict[Metric, MetricValue], Field(max_length=32)]
Seconds = Annotated[float, Field(ge=0.0)]
UNKNOWN_FORMAT = "unknown_format"


def _known_format(number: int) -> int:
    """No `maximum` of the schema: the CRD of a version that is rolled back to must keep the number that warns its operator."""
    if number > STATUS_FORMAT:
        raise PydanticCustomError(UNKNOWN_FORMAT, "this version knows formats up to {known}", {"known": STATUS_FORMAT})
    return number


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    type: ConditionType
    """What it is about."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Reason
    """Why, in one word."""
    message: Message = ""
    """Why, for a person."""
    last_transition_time: datetime
    """When the status changed last."""
    observed_generation: int | None = None
    """The generation of spec that it speaks of."""


class ArtifactStatus(Model):
    url: Annotated[str, StringConstraints(max_length=1200)]
    """Folder of the artifact in the store."""
    digest: Sha256
    """SHA-256 of its manifest.json."""
    fingerprint: Sha256
    """SHA-256 of the work that it holds the result of."""
    folder: Annotated[str, StringConstraints(max_length=128)] | None = None
    """Of a model: the folder below `url` that from_pretrained opens."""


class CheckpointStatus(Model):
    """`url` is the folder that AutoModel.from_pretrained opens, `digest` that of the artifact around it."""

    url: Annotated[str, StringConstraints(max_length=1200)]
    """Folder with the checkpoint's config.json and weights."""
    digest: Sha256
    """SHA-256 of its manifest.json."""


class HeldPod(Model):
    """A pod that is being let go: its stage's container has ended, and another goes on."""

    pod: Annotated[str, StringConstraints(max_length=253)]
    """Its name."""
    gpus: WholeNumber
    """GPUs that it holds."""
    since: datetime
    """Until when they are booked."""
    lost: bool = False
    """Booked as lost, too."""


class StageStatus(Model):
    """One stage of the run or of an iteration. `attempt` is the number of the newest attempt, from 1."""

    model_config = ATOMIC

    name: StageName
    """The stage."""
    phase: Phase
    """Where the stage is."""
    attempt: WholeNumber = 0
    """Number of the newest attempt, from 1; 0 before the first."""
    infrastructure_retries: WholeNumber = 0
    """Used of retry.infrastructure."""
    application_retries: WholeNumber = 0
    """Used of retry.application."""
    start_time: datetime | None = None
    """When its first attempt started."""
    completion_time: datetime | None = None
    """When it ended."""
    retry_at: datetime | None = None
    """When the next attempt may start, after a failure."""
    beside: bool | None = None
    """The run goes on without it: the next iteration does not wait for it, and its failure does not end the run. Absent: no."""
    resolving: bool = False
    """The newest attempt looks the artifact up (resolve) before anything is computed."""
    adopted: bool = False
    """Its artifact existed: found by a resolve Job, not computed."""
    artifact: ArtifactStatus | None = None
    """What it sealed."""
    metrics: Metrics = {}
    """What it measured."""
    benchmarks: Annotated[list[BenchmarkValue], Field(max_length=16)] | None = None
    """Of a benchmark, what gates read of it."""
    reason: Reason | None = None
    """Why it is where it is."""
    message: Message = ""
    """The same, for a person."""
    gpu_seconds: Seconds = 0.0
    """GPUs held times seconds held, all attempts."""
    queue_seconds: Seconds = 0.0
    """Seconds from creation to admission and start."""
    lost_gpu_seconds: Seconds = 0.0
    """gpuSeconds of attempts that did not finish."""
    held: Annotated[list[HeldPod], Field(max_length=1024), unique_by("pod")] = []
    """Pods with GPUs that are being let go."""


class GateVerdict(StrEnum):
    PASSED = "Passed"
    TRIPPED = "Tripped"
    APPROVED = "Approved"
    NOT_EVALUATED = "NotEvaluated"


class GateStatus(Model):
    name: EntryName
    """The gate."""
    verdict: GateVerdict
    """What it found."""
    action: GateAction
    """What a trip does."""
    message: Message = ""
    """The figures behind the verdict."""


class IterationStatus(Model):
    model_config = ATOMIC

    number: Annotated[int, Field(ge=1, le=50)]
    """t, from 1."""
    stages: Annotated[list[StageStatus], Field(max_length=8), unique_by("name")] = []
    """sample, label, reference, train, evaluate."""
    metrics: Metrics = {}
    """Of the iterate that this iteration trained."""
    gates: Annotated[list[GateStatus], Field(max_length=16), unique_by("name")] = []
    """What each gate found."""
    discarded: bool = False
    """pi_t was rolled back; D_t stays."""


class Totals(Model):
    gpu_seconds: Seconds = 0.0
    """Sum over all stages and attempts."""
    queue_seconds: Seconds = 0.0
    """Sum over all stages."""
    lost_gpu_seconds: Seconds = 0.0
    """Sum over all stages."""
    work_seconds: Seconds = 0.0
    """Against activeDeadlineSeconds: neither queue nor suspension."""


class RLHFRunStatus(Model):
    format: Annotated[int, Field(ge=1), AfterValidator(_known_format)] | None = None
    """Absent: 1. What knows less leaves the run alone."""
    observed_generation: int | None = None
    """The generation of spec that this status speaks of."""
    phase: Phase = Phase.PENDING
    """Where the run is."""
    conditions: Annotated[list[Condition], Field(max_length=8), unique_by("type")] = []
    """Ready, Progressing, Suspended, Complete, Failed."""
    start_time: datetime | None = None
    """When the run started."""
    completion_time: datetime | None = None
    """When it ended."""
    image: Annotated[str, StringConstraints(max_length=512)] | None = None
    """Resolved, and pinned for the whole run."""
    iteration: WholeNumber = 0
    """At work; 0 before the first."""
    stage: StageName | None = None
    """At work."""
    message: Message = ""
    """Where the run is, for a person."""
    stages: Annotated[list[StageStatus], Field(max_length=8), unique_by("name")] = []
    """Of the run: preflight, sft, reward, evaluate (of pi_0), finalize."""
    iterations: Annotated[list[IterationStatus], Field(max_length=50), unique_by("number")] = []
    """What each iteration did."""
    best_iteration: WholeNumber | None = None
    """0 is pi_0."""
    win_rate: float | None = None
    """winRateVsInitial of the best iterate, in four digits: what `kubectl get` shows."""
    checkpoint: CheckpointStatus | None = None
    """Of the best iterate."""
    resolved: Annotated[dict[str, Annotated[str, StringConstraints(max_length=64)]], Field(max_length=256)] = {}
    """Revisions that preflight resolved, by the path of the reference in spec."""
    adoptable: WholeNumber = 0
    """How many stages of the chain, in order, preflight found sealed in the store."""
    prompt_iterations: WholeNumber = 0
    """T when the run started: prompts are held out over so many sources, also when `iterations` is raised later; 0 before."""
    totals: Totals = Totals()
    """Sums over the run."""
