"""Seconds and GPU seconds of an attempt, from the times of its pods."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from rlhf_api.resource.status import HeldPod, RLHFRunStatus, StageStatus, Totals
from rlhf_api.words import Phase
from rlhf_operator.core.cursor import stages_of, with_stage
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


def usage(job: Job | None, now: datetime, held: Collection[HeldPod] = ()) -> Usage:
    """Of one attempt up to now; nothing where the Job is gone. The GPUs of `held` pods are booked apart."""
    if job is None:
        return Usage()
    started = [pod.started_at for pod in job.pods if pod.started_at is not None]
    if not started:
        return Usage(queue_seconds=_seconds(job.created_at, now))
    ends = [pod.finished_at or now for pod in job.pods if pod.started_at is not None]
    apart = {entry.pod for entry in held}
    of_pods = [(pod, _gpu_seconds(pod, now)) for pod in job.pods if pod.started_at is not None and pod.name not in apart]
    return Usage(
        work_seconds=_seconds(min(started), max(ends)),
        queue_seconds=_seconds(job.created_at, min(started)),
        gpu_seconds=sum(seconds for _, seconds in of_pods),
        lost_gpu_seconds=sum(seconds for pod, seconds in of_pods if pod.state is PodState.FAILED),
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


def with_held(stage: StageStatus, pods: Iterable[Pod], now: datetime, *, lost: bool | None = None) -> StageStatus:
    """The stage's pods that are let go from now on: what they hold until they are gone is booked then. `lost`: absent, by pod."""
    known = {entry.pod for entry in stage.held}
    entries = [
        HeldPod(pod=pod.name, gpus=pod.gpus, since=now, lost=pod.state is PodState.FAILED if lost is None else lost)
        for pod in pods
        if pod.holds and pod.gpus and pod.name not in known
    ]
    return stage.model_copy(update={"held": [*stage.held, *entries]}) if entries else stage


def booked_apart(stage: StageStatus, pods: Iterable[Pod], now: datetime) -> StageStatus:
    """Book pods of an attempt that goes on without them, once; their Job will have forgotten them when it ends."""
    known = {entry.pod for entry in stage.held}
    for pod in pods:
        if pod.name not in known:
            seconds = _gpu_seconds(pod, now)
            lost = seconds if pod.state is PodState.FAILED else 0.0
            stage = with_usage(stage, Usage(gpu_seconds=seconds, lost_gpu_seconds=lost), lost=False)
            stage = with_held(stage, [pod], now)
    return stage


def with_released(status: RLHFRunStatus, jobs: Iterable[Job], now: datetime) -> RLHFRunStatus:
    """Book what held pods have held since, where they hold it no more; the very same status where there is nothing to book."""
    pods = {pod.name: pod for job in jobs for pod in job.pods}
    before = status
    for iteration, stage in stages_of(before):
        held = [entry for entry in stage.held if _is_held(pods.get(entry.pod), stage)]
        if len(held) == len(stage.held):
            continue
        for entry in stage.held:
            if entry not in held:
                used = Usage(gpu_seconds=entry.gpus * _seconds(entry.since, now))
                stage = with_usage(stage, used, lost=entry.lost)
        status = with_stage(status, iteration, stage.model_copy(update={"held": held}))
    return status if status is before else status.model_copy(update={"totals": totals(status, 0.0)})


def _is_held(pod: Pod | None, stage: StageStatus) -> bool:
    """While its attempt is at work an entry also keeps the pod from being booked with the others."""
    return pod is not None and (pod.holds or stage.phase is Phase.RUNNING)


def totals(status: RLHFRunStatus, work_seconds: float) -> Totals:
    """Sums over the stages; `work_seconds` are added to what was booked before."""
    stages = [stage for _, stage in stages_of(status)]
    return Totals(
        gpu_seconds=sum(stage.gpu_seconds for stage in stages),
        queue_seconds=sum(stage.queue_seconds for stage in stages),
        lost_gpu_seconds=sum(stage.lost_gpu_seconds for stage in stages),
        work_seconds=status.totals.work_seconds + work_seconds,
    )


def _gpu_seconds(pod: Pod, now: datetime) -> float:
    """A pod that holds its GPUs does so until now, whatever its stage's container does."""
    return pod.gpus * _seconds(pod.started_at, now if pod.finished_at is None or pod.holds else pod.finished_at)


def _seconds(start: datetime | None, end: datetime) -> float:
    return 0.0 if start is None else max(0.0, (end - start).total_seconds())
