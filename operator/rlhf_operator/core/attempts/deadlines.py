"""activeDeadlineSeconds counts work, without queue and suspension; pendingDeadlineSeconds an admitted pod that cannot start."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Reason
from rlhf_operator.core.observed import Job, JobPhase, PodState

from .accounting import usage
from .retry import RunFailure


def active_deadline(spec: RLHFRunSpec, status: RLHFRunStatus, jobs: Iterable[Job], now: datetime) -> RunFailure | None:
    """`jobs` are those of the attempts at work, which are not booked yet. What works beside the chain counts too."""
    active = spec.active_deadline_seconds
    if active is not None and _worked(status, jobs, now) >= active:
        return RunFailure(
            Reason.DEADLINE_EXCEEDED,
            f"The run worked for activeDeadlineSeconds ({active} s) and is not done. Raise it and apply the run again: "
            "finished stages are found in the store, not run again.",
        )
    return None


def pending_deadline(spec: RLHFRunSpec, job: Job, beside: Collection[Job], now: datetime) -> RunFailure | None:
    """`job` is that of an attempt at work. What the run itself has beside it may be what it waits for: that time does not count."""
    pending = spec.pending_deadline_seconds
    since = _pending_since(job, beside, now)
    if pending is not None and since is not None and (now - since).total_seconds() >= pending:
        why = job.hindrance.message if job.hindrance is not None else "Look at the pod's events."
        return RunFailure(
            Reason.PENDING_DEADLINE_EXCEEDED,
            f"A pod of {job.name} could not start within pendingDeadlineSeconds ({pending} s). {why}",
        )
    return None


def until_deadline(
    spec: RLHFRunSpec, status: RLHFRunStatus, jobs: Collection[Job], seen: Collection[Job], now: datetime
) -> timedelta | None:
    """Until the next of the two would be exceeded if nothing changes; `jobs` as in `active_deadline`, `seen`: all of the run."""
    waits = []
    working = sum(not job.ended for job in jobs)
    if spec.active_deadline_seconds is not None and working:
        waits.append((spec.active_deadline_seconds - _worked(status, jobs, now)) / working)
    if spec.pending_deadline_seconds is not None:
        pending = [since for job in jobs if (since := _pending_since(job, seen, now)) is not None]
        waits += [spec.pending_deadline_seconds - (now - since).total_seconds() for since in pending]
    return timedelta(seconds=max(0.0, min(waits))) if waits else None


def _worked(status: RLHFRunStatus, jobs: Iterable[Job], now: datetime) -> float:
    return status.totals.work_seconds + sum(usage(job, now).work_seconds for job in jobs)


def _pending_since(job: Job, seen: Collection[Job], now: datetime) -> datetime | None:
    """Since when an admitted Job has a pod that does not start, or no pod at all, and no other Job of the run has one at work."""
    if job.phase is not JobPhase.ACTIVE or job.deleting:
        return None
    waiting = [pod.created_at or job.created_at for pod in job.pods if pod.state is PodState.PENDING]
    if not job.pods:
        waiting.append(job.admitted_at or job.created_at)
    held = [
        now if pod.holds else pod.finished_at or now for other in seen if other is not job for pod in other.pods if pod.started_at
    ]
    return max([min(waiting), *held]) if waiting else None
