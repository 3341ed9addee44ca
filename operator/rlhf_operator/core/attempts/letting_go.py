"""Ends Jobs and pods that hold on to their GPUs when their stage is done: what was left behind, and what a container beside the
stage's keeps alive (ADR 0017).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from rlhf_operator.core.actions import Action, DeleteJob, DeletePod, EmitEvent, EventKind
from rlhf_operator.core.observed import Job, JobPhase, Pod, PodState

from .outcome import is_sharded, until_over

#: What has ended may end by itself: a deleted Job or pod takes its log with it.
_GRACE = timedelta(seconds=10)


def patience(job: Job, now: datetime) -> timedelta:
    """How long a Job that a stage left behind may still take to end by itself, after a pod of it ended well or the first failed."""
    well = [pod.finished_at for pod in job.pods if pod.state is PodState.SUCCEEDED and pod.finished_at is not None]
    badly = [pod.finished_at for pod in job.pods if pod.lingers and pod.finished_at is not None]
    if job.deleting or not (well or badly):
        return timedelta(0)
    return max(well or [min(badly)]) + _GRACE - now


def clearing(jobs: Iterable[Job], now: datetime) -> tuple[tuple[Action, ...], timedelta | None]:
    """For a run that wants none of them any more: deletions, and when to look again at what may still end by itself."""
    jobs = list(jobs)
    waits = {job.name: patience(job, now) for job in jobs if _is_idle(job)}
    spared = {name: wait for name, wait in waits.items() if wait > timedelta(0)}
    return deletions(job for job in jobs if job.name not in spared), min(spared.values(), default=None)


def deletions(jobs: Iterable[Job]) -> tuple[Action, ...]:
    """Of every Job that still holds anything, and of its pods that linger: those need not the time that a checkpoint takes."""
    actions: list[Action] = []
    for job in jobs:
        if not job.released and not job.deleting:
            actions += [*_told(job, job.pods), DeleteJob(job.name, job.uid), *_pods(job.pods)]
    return tuple(actions)


def shard_deletions(job: Job, pods: Iterable[Pod]) -> tuple[Action, ...]:
    """Of these pods of a sharded Job that is at work. What it makes of that is what it would have made of their end."""
    pods = list(pods)
    return (*_told(job, pods), *_pods(pods))


def lingering_shards(job: Job | None, now: datetime) -> list[Pod]:
    """Pods of a sharded Job at work that are to be let go now.

    One that ended well has done its part. Where the Job makes another of it all the same, for a sidecar that does not end well when
    it is told to, that one is let go only if an index waits for its place.
    """
    if job is None or not is_sharded(job) or job.phase is not JobPhase.ACTIVE or job.deleting:
        return []
    waits = len({pod.index for pod in job.pods}) < job.completions
    again = {pod.index for pod in job.pods if sum(other.index == pod.index for other in job.pods) > 1}
    return [
        pod
        for pod in job.last_pods
        if pod.lingers and _left(pod, now) <= timedelta(0) and (pod.state is PodState.FAILED or waits or pod.index not in again)
    ]


def until_let_go(job: Job | None, now: datetime) -> timedelta | None:
    """Until something is to be done about pods of the attempt at work that linger; None: there is nothing of the kind."""
    if job is None:
        return None
    waits = [left for pod in job.last_pods if pod.lingers and (left := _left(pod, now)) > timedelta(0)]
    over = until_over(job, now)
    return min([*waits, *([] if over is None else [over])], default=None)


def lingering(pods: Iterable[Pod]) -> str:
    """A sentence about the first of them; "" where none lingers."""
    for pod in pods:
        if pod.lingers:
            return f"The stage's container in pod {pod.name} has ended, and {', '.join(pod.beside)} goes on in it."
    return ""


def _is_idle(job: Job) -> bool:
    """Nothing of the stage is at work in it; only what stands beside goes on."""
    return any(pod.lingers for pod in job.pods) and all(pod.state.ended for pod in job.pods)


def _left(pod: Pod, now: datetime) -> timedelta:
    return (pod.finished_at or now) + _GRACE - now


def _told(job: Job, pods: Iterable[Pod]) -> Iterator[EmitEvent]:
    words = lingering(pods)
    if words:
        advice = "Make it a native sidecar, or leave the pods of runs out of its injection."
        message = f"{words} The pod is stopped, to free what it holds. {advice}"
        yield EmitEvent(EventKind.WARNING, None, message, job.iteration, job.stage, job.attempt)


def _pods(pods: Iterable[Pod]) -> Iterator[DeletePod]:
    for pod in pods:
        if pod.lingers:
            yield DeletePod(pod.name, pod.uid)
