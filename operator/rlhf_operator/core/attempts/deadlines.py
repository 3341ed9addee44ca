"""activeDeadlineSeconds counts work, without queue and suspension; pendingDeadlineSeconds an admitted pod that cannot start."""

from __future__ import annotations

from datetime import datetime, timedelta

from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Reason
from rlhf_operator.core.observed import Job, JobPhase, PodState

from .accounting import usage
from .retry import RunFailure


def deadline_exceeded(spec: RLHFRunSpec, status: RLHFRunStatus, job: Job | None, now: datetime) -> RunFailure | None:
    """`job` is the current attempt's, if it is not booked yet."""
    active = spec.active_deadline_seconds
    if active is not None and _worked(status, job, now) >= active:
        return RunFailure(
            Reason.DEADLINE_EXCEEDED,
            f"The run worked for activeDeadlineSeconds ({active} s) and is not done. Raise it and apply the run again: "
            "finished stages are found in the store, not run again.",
        )
    pending = spec.pending_deadline_seconds
    since = _pending_since(job)
    if pending is not None and since is not None and (now - since).total_seconds() >= pending:
        why = job.hindrance.message if job is not None and job.hindrance is not None else "Look at the pod's events."
        return RunFailure(
            Reason.PENDING_DEADLINE_EXCEEDED,
            f"A pod of {job.name if job else 'the run'} could not start within pendingDeadlineSeconds ({pending} s). {why}",
        )
    return None


def until_deadline(spec: RLHFRunSpec, status: RLHFRunStatus, job: Job | None, now: datetime) -> timedelta | None:
    """Until the next of the two would be exceeded if nothing changes."""
    waits = []
    if spec.active_deadline_seconds is not None and job is not None and not job.ended:
        waits.append(spec.active_deadline_seconds - _worked(status, job, now))
    if spec.pending_deadline_seconds is not None and (since := _pending_since(job)) is not None:
        waits.append(spec.pending_deadline_seconds - (now - since).total_seconds())
    return timedelta(seconds=max(0.0, min(waits))) if waits else None


def _worked(status: RLHFRunStatus, job: Job | None, now: datetime) -> float:
    return status.totals.work_seconds + usage(job, now).work_seconds


def _pending_since(job: Job | None) -> datetime | None:
    """Since when an admitted Job has a pod that does not start, or no pod at all."""
    if job is None or job.phase is not JobPhase.ACTIVE or job.deleting:
        return None
    waiting = [pod.created_at or job.created_at for pod in job.pods if pod.state is PodState.PENDING]
    if not job.pods:
        waiting.append(job.admitted_at or job.created_at)
    return min(waiting, default=None)
