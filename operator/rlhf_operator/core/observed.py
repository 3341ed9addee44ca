"""What a backend sees of a run's children: Jobs and their pods, or process groups and their processes, as facts with times.

One Job is one attempt of one stage; shards are its indexes, and an index that is retried has several pods. Locally a process is a
pod: the exit code of one that a signal ended is 128 + the signal's number, as a container's is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from rlhf_api.stage import StageResult
from rlhf_api.words import Reason, StageName


class PodState(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    TERMINATING = "Terminating"
    """Told to stop, and not ended yet."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def ended(self) -> bool:
        return self in (PodState.SUCCEEDED, PodState.FAILED)


@dataclass(frozen=True)
class Pod:
    state: PodState
    index: int = 0
    """Shard or node."""
    exit_code: int | None = None
    """Of the stage container; None while it runs, and where it is not known any more (node lost, supervisor killed)."""
    reason: str | None = None
    """Of the container's or the pod's end: OOMKilled, Evicted, …"""
    disrupted: bool = False
    """Condition DisruptionTarget: preempted, drained, evicted under node pressure."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    gpus: int = 0
    result: StageResult | None = None
    """None where it cannot be read."""
    name: str = ""
    uid: str = ""
    beside: tuple[str, ...] = ()
    """The stage's container has ended, as `state` says, and these of the pod go on (a service mesh's, for instance). So the pod
    still holds what it has, and its Job does not know that it ended."""

    @property
    def lingers(self) -> bool:
        return bool(self.beside)

    @property
    def holds(self) -> bool:
        """It has what it was given, such as its GPUs."""
        return self.started_at is not None and (self.lingers or not self.state.ended)


class JobPhase(StrEnum):
    SUSPENDED = "Suspended"
    """Not admitted by its queue, or sent back to it."""
    ACTIVE = "Active"
    FAILURE_TARGET = "FailureTarget"
    """It will fail; its pods are being stopped."""
    COMPLETE = "Complete"
    FAILED = "Failed"

    @property
    def ended(self) -> bool:
        return self in (JobPhase.COMPLETE, JobPhase.FAILED)


@dataclass(frozen=True)
class Hindrance:
    """Why a Job does not get on: Unschedulable, ImagePullBackOff, QuotaExceeded, WaitingForQuota, …"""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Job:
    """One attempt, ours by its owner's UID."""

    name: str
    uid: str
    iteration: int | None
    stage: StageName
    """For a resolve Job: the stage that it resolves."""
    attempt: int
    phase: JobPhase
    created_at: datetime
    resolving: bool = False
    deleting: bool = False
    """It has a deletionTimestamp: it is going, and its pods with it."""
    admitted_at: datetime | None = None
    """When its pods could be made."""
    pods: tuple[Pod, ...] = ()
    infrastructure_base: int = 0
    """The stage's infrastructure retries when this Job was made; pods that it replaces inside count on top."""
    application_base: int = 0
    hindrance: Hindrance | None = None
    completions: int = 1
    """How many indexes it has."""
    never_began: bool = False
    """It has failed before any pod of it was made: nothing was tried."""

    @property
    def ended(self) -> bool:
        """Complete or Failed, and no pod is pending, running or terminating."""
        return self.phase.ended and all(pod.state.ended and not pod.lingers for pod in self.pods)

    @property
    def succeeded(self) -> bool:
        """Its controller says so, or will in a second or two, or for ever does not know it."""
        return self.phase is JobPhase.COMPLETE or self._all_ended_well

    @property
    def released(self) -> bool:
        """It holds nothing any more."""
        return self.ended or (self._all_ended_well and not any(pod.lingers for pod in self.pods))

    @property
    def last_pods(self) -> tuple[Pod, ...]:
        """The newest of each index that has one."""
        earliest = datetime.min.replace(tzinfo=UTC)
        last: dict[int, Pod] = {}
        for pod in sorted(self.pods, key=lambda pod: pod.created_at or earliest):
            last[pod.index] = pod
        return tuple(last.values())

    @property
    def _all_ended_well(self) -> bool:
        """The stage's container of every index did; of a Job that failed all the same, a container beside it did not."""
        if self.phase not in (JobPhase.ACTIVE, JobPhase.FAILED):
            return False
        last = self.last_pods
        indexes = {pod.index for pod in last}
        return indexes.issuperset(range(self.completions)) and all(pod.state is PodState.SUCCEEDED for pod in last)

    @property
    def key(self) -> tuple[int | None, StageName, int]:
        return self.iteration, self.stage, self.attempt


@dataclass(frozen=True)
class Refusal:
    """An action that could not be carried out the last time it was tried: a quota, a foreign object of that name."""

    name: str
    reason: Reason | None
    message: str
    since: datetime | None = None
    """When it was refused first; None: not known."""


@dataclass(frozen=True)
class Environment:
    """What the backend adds to a spec."""

    image: str | None = None
    """For a spec without one."""
    allow_cpu: bool = False
    """Run without the GPUs that the spec asks for."""


@dataclass(frozen=True)
class Observed:
    """Children of one run. What is seen is true, though perhaps old; that something is absent is sure only when `live`."""

    jobs: tuple[Job, ...] = ()
    live: bool = False
    """Read from the source itself, after the run: not from an index that may lag behind."""
    children: bool = False
    """There is something that ttlSecondsAfterFinished would remove."""
    interrupted: bool = False
    """The backend itself is being stopped and takes its stages with it (Ctrl-C); like suspend, until it comes back."""
    refusals: tuple[Refusal, ...] = ()
    environment: Environment = Environment()

    def job(self, iteration: int | None, stage: StageName, attempt: int) -> Job | None:
        return next((job for job in self.jobs if job.key == (iteration, stage, attempt)), None)
