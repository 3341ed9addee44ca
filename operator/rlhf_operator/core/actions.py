"""What a backend is asked to do, as data. Every action is idempotent: done again it changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlhf_api.resource.compute import Pod, Queue
from rlhf_api.stage import StageConfig
from rlhf_api.words import Reason, StageName


class Topology(StrEnum):
    SINGLE = "Single"
    SHARDED = "Sharded"
    """Indexed; an index is a shard and is retried by itself."""
    GANG = "Gang"
    """Indexed; an index is a node of one torchrun: all run together or none does."""


@dataclass(frozen=True)
class Shape:
    topology: Topology
    completions: int = 1
    parallelism: int = 1
    backoff_limit_per_index: int | None = None
    """Sharded: how many failures of an index are retried inside the Job; one more fails the Job, without waiting for the other
    indexes. Exit 75, exit 143 and disruptions do not count. Otherwise no pod is replaced at all: backoffLimit is 0."""


@dataclass(frozen=True)
class CreateNetworkPolicy:
    """Let only the run's own pods reach its stage pods. Applied, not created."""

    name: str


@dataclass(frozen=True)
class CreateConfigMap:
    """Hold the attempt's configuration. Applied, not created."""

    name: str
    config: StageConfig


@dataclass(frozen=True)
class CreateService:
    """Headless, for the rendezvous of a gang's pods; `<job>-0.<name>` is the master. Applied, not created."""

    name: str


@dataclass(frozen=True)
class CreateJob:
    """Start an attempt. That a Job of this name exists is success only if the run's UID owns it and it is not being deleted."""

    name: str
    iteration: int | None
    stage: StageName
    attempt: int
    resolving: bool
    config: StageConfig
    shape: Shape
    pod: Pod
    queue: Queue | None
    image: str | None
    infrastructure_base: int
    application_base: int


@dataclass(frozen=True)
class DeleteJob:
    """Stop an attempt and remove it: foreground, so that it is gone only when its pods are; only the Job with this UID."""

    name: str
    uid: str


@dataclass(frozen=True)
class DeletePod:
    """End a pod whose stage's container has ended; only the pod with this UID. What goes on in it has a short time to end."""

    name: str
    uid: str


@dataclass(frozen=True)
class RemoveChildren:
    """Remove everything of the run but the run itself and its artifacts."""


class EventKind(StrEnum):
    """What an event tells; the local backend's listener knows the same words."""

    RUN = "Run"
    STARTED = "Started"
    SUCCEEDED = "Succeeded"
    ADOPTED = "Adopted"
    RETRYING = "Retrying"
    FAILED = "Failed"
    GATE = "Gate"
    WARNING = "Warning"


@dataclass(frozen=True)
class EmitEvent:
    """Tell a person. Lost if the backend dies just then: nothing depends on it."""

    kind: EventKind
    reason: Reason | None
    message: str
    iteration: int | None = None
    stage: StageName | None = None
    attempt: int | None = None

    @property
    def warning(self) -> bool:
        return self.kind in (EventKind.RETRYING, EventKind.FAILED, EventKind.GATE, EventKind.WARNING)


Action = CreateNetworkPolicy | CreateConfigMap | CreateService | CreateJob | DeleteJob | DeletePod | RemoveChildren | EmitEvent
