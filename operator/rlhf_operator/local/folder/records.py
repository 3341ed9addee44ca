"""What is kept on disk of an attempt: what a cluster keeps in its Job and pods. A new supervisor reads it and goes on."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rlhf_api.reading.unknown import Mismatch, mismatches_of
from rlhf_api.stage import StageResult
from rlhf_api.words import StageName
from rlhf_operator.core.actions import Topology
from rlhf_operator.core.observed import Job, JobPhase, Pod, PodState
from rlhf_operator.local.errors import writing

from .files import write_atomically

_FILE = "attempt.json"


class PodRecord(BaseModel):
    """One process of a stage. `uid` is in its environment and in that of all its descendants."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uid: str
    index: int
    state: PodState
    created_at: datetime
    gpus: int = 0
    exit_code: int | None = None
    reason: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: StageResult | None = None

    def observed(self) -> Pod:
        return Pod(
            state=self.state,
            index=self.index,
            exit_code=self.exit_code,
            reason=self.reason,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            gpus=self.gpus,
            result=self.result,
        )


class AttemptRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    uid: str
    run_uid: str
    iteration: int | None = None
    stage: StageName
    attempt: int
    resolving: bool
    created_at: datetime
    topology: Topology
    completions: int
    backoff_limit_per_index: int | None = None
    infrastructure_base: int
    application_base: int
    phase: JobPhase = JobPhase.ACTIVE
    deleted: bool = False
    """Stopped on demand, and gone."""
    pods: tuple[PodRecord, ...] = ()

    @property
    def live(self) -> tuple[PodRecord, ...]:
        """Pods whose process may run."""
        return tuple(pod for pod in self.pods if pod.state in (PodState.RUNNING, PodState.TERMINATING))

    def with_pod(self, changed: PodRecord) -> AttemptRecord:
        """Replace the pod of this uid, or add it."""
        known = any(pod.uid == changed.uid for pod in self.pods)
        pods = tuple(changed if pod.uid == changed.uid else pod for pod in self.pods)
        return self.model_copy(update={"pods": pods if known else (*pods, changed)})

    def observed(self, *, deleting: bool) -> Job:
        """A shard that waits for its turn is not observed: in a cluster too, its pod is made only when it may start."""
        return Job(
            name=self.name,
            uid=self.uid,
            iteration=self.iteration,
            stage=self.stage,
            attempt=self.attempt,
            phase=self.phase,
            created_at=self.created_at,
            admitted_at=self.created_at,
            resolving=self.resolving,
            deleting=deleting,
            pods=tuple(pod.observed() for pod in self.pods if pod.state is not PodState.PENDING),
            infrastructure_base=self.infrastructure_base,
            application_base=self.application_base,
            completions=self.completions,
            never_began=self.phase is JobPhase.FAILED and not self.pods,
        )

    def save(self, folder: Path) -> None:
        """Raises StateUnusable."""
        with writing(folder / _FILE):
            write_atomically(folder / _FILE, self.model_dump_json(by_alias=True, exclude_none=True).encode())


def read_records(folder: Path) -> dict[Path, AttemptRecord]:
    """All attempts below `folder`, by their own folder. One that cannot be read was never whole: its Job does not exist."""
    records = {path.parent: read_record(path.parent) for path in sorted(folder.glob(f"*/{_FILE}"))}
    return {path: record for path, record in records.items() if record is not None}


def read_record(folder: Path) -> AttemptRecord | None:
    """Of the attempt of this folder; None where it was never whole."""
    try:
        return AttemptRecord.model_validate_json((folder / _FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def unknown_in_records(folder: Path) -> tuple[Mismatch, ...]:
    """What another version wrote into an attempt's record below `folder` and this one does not know: passed over, the attempt would
    be taken for absent.
    """
    found: list[Mismatch] = []
    for path in sorted(folder.glob(f"*/{_FILE}")):
        with suppress(OSError):
            found += mismatches_of(AttemptRecord, path.read_bytes(), str(path.relative_to(folder.parent)))
    return tuple(found)


def scratch_folder(attempt_folder: Path, pod: str) -> Path:
    """Of the process with this uid, for as long as it lives."""
    return attempt_folder / f"scratch-{pod}"


def remove_scratch(attempt_folder: Path, pod: str) -> None:
    """Of a process that is gone: checkpoints, exports and inputs, which may be large."""
    shutil.rmtree(scratch_folder(attempt_folder, pod), ignore_errors=True)
