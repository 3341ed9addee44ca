"""`status`: written by the operator or the local backend, by nobody else. Bounded: at most 50 iterations, 32 metrics each."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from .base import EntryName, Model, Sha256, WholeNumber
from .evaluation import GateAction
from .metrics import Metric, MetricValue
from .words import ConditionType, Phase, Reason, StageName

Message = Annotated[str, StringConstraints(max_length=2048)]
Metrics = Annotated[dict[Metric, MetricValue], Field(max_length=32)]
Seconds = Annotated[float, Field(ge=0.0)]


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: Message = ""
    last_transition_time: datetime
    observed_generation: int | None = None


class ArtifactStatus(Model):
    url: Annotated[str, StringConstraints(max_length=1200)]
    digest: Sha256
    fingerprint: Sha256


class CheckpointStatus(Model):
    url: Annotated[str, StringConstraints(max_length=1200)]
    digest: Sha256


class StageStatus(Model):
    """One stage of the run or of an iteration. `attempt` is the number of the newest attempt, from 1."""

    name: StageName
    phase: Phase
    attempt: WholeNumber = 0
    infrastructure_retries: WholeNumber = 0
    application_retries: WholeNumber = 0
    start_time: datetime | None = None
    completion_time: datetime | None = None
    retry_at: datetime | None = None
    """When the next attempt may start, after a failure."""
    resolving: bool = False
    """The newest attempt looks the artifact up (resolve) before anything is computed."""
    adopted: bool = False
    """Its artifact existed: found by a resolve Job, not computed."""
    artifact: ArtifactStatus | None = None
    metrics: Metrics = {}
    reason: Reason | None = None
    message: Message = ""
    gpu_seconds: Seconds = 0.0
    queue_seconds: Seconds = 0.0
    lost_gpu_seconds: Seconds = 0.0


class GateVerdict(StrEnum):
    PASSED = "Passed"
    TRIPPED = "Tripped"
    APPROVED = "Approved"
    NOT_EVALUATED = "NotEvaluated"


class GateStatus(Model):
    name: EntryName
    verdict: GateVerdict
    action: GateAction
    message: Message = ""


class IterationStatus(Model):
    number: Annotated[int, Field(ge=1, le=50)]
    stages: Annotated[list[StageStatus], Field(max_length=8)] = []
    metrics: Metrics = {}
    gates: Annotated[list[GateStatus], Field(max_length=16)] = []
    discarded: bool = False
    """pi_t was rolled back; D_t stays."""


class Totals(Model):
    gpu_seconds: Seconds = 0.0
    queue_seconds: Seconds = 0.0
    lost_gpu_seconds: Seconds = 0.0
    work_seconds: Seconds = 0.0
    """Against activeDeadlineSeconds: neither queue nor suspension."""


class RLHFRunStatus(Model):
    observed_generation: int | None = None
    phase: Phase = Phase.PENDING
    conditions: Annotated[list[Condition], Field(max_length=8)] = []
    start_time: datetime | None = None
    completion_time: datetime | None = None
    image: Annotated[str, StringConstraints(max_length=512)] | None = None
    """Resolved, and pinned for the whole run."""
    iteration: WholeNumber = 0
    """At work; 0 before the first."""
    stage: StageName | None = None
    """At work."""
    message: Message = ""
    stages: Annotated[list[StageStatus], Field(max_length=8)] = []
    """Of the run: preflight, sft, reward, evaluate (of pi_0), finalize."""
    iterations: Annotated[list[IterationStatus], Field(max_length=50)] = []
    best_iteration: WholeNumber | None = None
    """0 is pi_0."""
    checkpoint: CheckpointStatus | None = None
    """Of the best iterate."""
    resolved: Annotated[dict[str, Annotated[str, StringConstraints(max_length=64)]], Field(max_length=256)] = {}
    """Revisions that preflight resolved, by the path of the reference in spec."""
    adoptable: WholeNumber = 0
    """How many stages of the chain, in order, preflight found sealed in the store."""
    prompt_iterations: WholeNumber = 0
    """T when the run started: prompts are held out over so many sources, also when `iterations` is raised later; 0 before the start."""
    totals: Totals = Totals()
