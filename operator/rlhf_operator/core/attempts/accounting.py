"""Seconds and GPU seconds of an attempt, from the times of its pods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rlhf_api.resource.status import RLHFRunStatus, StageStatus, Totals
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.core.observed import Job, Pod, PodState


@dataclass(frozen=True)
class Usage:
    work_seconds: float = 0.0
    """From the first pod's start to the last one's end: against activeDeadlineSeconds."""
    queue_seconds: float = 0.0
    """From the Job's creation to its first pod's start."""
    gpu_seconds: float = 0.0
    lost_gpu_seconds: float = 0.0
    """Of pods that failed."""


def usage(job: Job | None, now: datetime) -> Usage:
    """Of one attempt up to now; nothing where the Job is gone."""
    if job is None:
        return Usage()
    started = [pod.started_at for pod in job.pods if pod.started_at is not None]
    if not started:
        return Usage(queue_seconds=_seconds(job.created_at, now))
    ends = [_end(pod, now) for pod in job.pods if pod.started_at is not None]
    held = [(pod, pod.gpus * _seconds(pod.started_at, _end(pod, now))) for pod in job.pods if pod.started_at is not None]
    return Usage(
        work_seconds=_seconds(min(started), max(ends)),
        queue_seconds=_seconds(job.created_at, min(started)),
        gpu_seconds=sum(seconds for _, seconds in held),
        lost_gpu_seconds=sum(seconds for pod, seconds in held if pod.state is PodState.FAILED),
    )


def with_usage(stage: StageStatus, used: Usage, *, lost: bool) -> StageStatus:
    """Book an attempt that ended, once; `lost`: all of its GPU time bought nothing that lasts."""
    return stage.model_copy(
        update={
            "queue_seconds": stage.queue_seconds + used.queue_seconds,
            "gpu_seconds": stage.gpu_seconds + used.gpu_seconds,
            "lost_gpu_seconds": stage.lost_gpu_seconds + (used.gpu_seconds if lost else used.lost_gpu_seconds),
        }
    )


def totals(status: RLHFRunStatus, work_seconds: float) -> Totals:
    """Sums over the stages; `work_seconds` are added to what was booked before."""
    stages = [stage for _, stage in stages_of(status)]
    return Totals(
        gpu_seconds=sum(stage.gpu_seconds for stage in stages),
        queue_seconds=sum(stage.queue_seconds for stage in stages),
        lost_gpu_seconds=sum(stage.lost_gpu_seconds for stage in stages),
        work_seconds=status.totals.work_seconds + work_seconds,
    )


def _end(pod: Pod, now: datetime) -> datetime:
    return pod.finished_at or now


def _seconds(start: datetime | None, end: datetime) -> float:
    return 0.0 if start is None else max(0.0, (end - start).total_seconds())
