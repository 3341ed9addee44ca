"""Take what is observed of the current attempt into the status: it starts, goes on, ends, or is gone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rlhf_api.resource.compute import Retry
from rlhf_api.resource.status import ArtifactStatus, RLHFRunStatus, StageStatus
from rlhf_api.stage import ResolveWork, StageConfig, StageResult
from rlhf_api.words import STAGE_ARTIFACT, Phase, Reason, StageName
from rlhf_operator.core.chain.references import format_of
from rlhf_operator.core.cursor import with_stage
from rlhf_operator.core.observed import Job
from rlhf_operator.core.status.sentences import clip, sentence, stage_of

from .accounting import Usage, totals, usage, with_held, with_usage
from .outcome import (
    Failed,
    FailureClass,
    Lost,
    NeverBegan,
    NotFound,
    Succeeded,
    application_failures,
    ignored_pods,
    is_sharded,
    last_words,
    outcome_of,
)
from .retry import RunFailure, booked, exhausted, next_attempt, wait_before_retry


@dataclass(frozen=True)
class Absorbed:
    status: RLHFRunStatus
    failure: RunFailure | None = None
    warnings: tuple[str, ...] = ()
    """Of a stage that ended well."""


def absorb_job(
    status: RLHFRunStatus, iteration: int | None, stage: StageStatus, job: Job, config: StageConfig, retry: Retry, now: datetime
) -> Absorbed:
    """The current attempt's Job is there. `config` is the attempt's."""
    outcome = outcome_of(job, config, now)
    if outcome is None:
        going_on = _going_on(stage, job)
        return Absorbed(with_stage(status, iteration, going_on), _worn_out(going_on, iteration, job, retry))
    # A suspended attempt was booked when it was told to stop; of one that never began, the time is nobody's.
    unbooked = stage.phase is Phase.SUSPENDED or isinstance(outcome, NeverBegan)
    used = Usage() if unbooked else usage(job, now, stage.held)
    lost = not isinstance(outcome, Succeeded | NotFound)
    ended = with_usage(_counted(stage, job), used, lost=lost)
    if any(pod.lingers for pod in job.pods):
        ended = with_held(ended, job.pods, now, lost=lost)
    status = status.model_copy(update={"totals": totals(status, used.work_seconds)})
    match outcome:
        case Succeeded(result):
            return _succeeded(status, iteration, ended, result, config, _ended_at(job, now))
        case NotFound():
            retried = next_attempt(ended, resolving=False, message="Its artifact is not in the store; it is computed.")
            return Absorbed(_with_totals(status, iteration, retried))
        case NeverBegan():
            return Absorbed(_with_totals(status, iteration, next_attempt(ended, resolving=stage.resolving)))
        case Lost(message):
            return _lost(status, iteration, ended, message, retry, now)
        case Failed():
            return _failed(status, iteration, ended, job, outcome, retry, now)


def absorb_absence(status: RLHFRunStatus, iteration: int | None, stage: StageStatus, retry: Retry, now: datetime) -> Absorbed:
    """The attempt ran, and its Job is gone: somebody removed it, or its supervisor died with it."""
    return _lost(status, iteration, stage, "Its Job is gone and left no result.", retry, now)


def _going_on(stage: StageStatus, job: Job) -> StageStatus:
    hindrance = job.hindrance
    update = {
        "phase": Phase.RUNNING,
        "retry_at": None,
        "reason": None if hindrance is None else hindrance.reason,
        "message": "" if hindrance is None else clip(hindrance.message),
    }
    return _counted(stage, job).model_copy(update=update)


def _worn_out(stage: StageStatus, iteration: int | None, job: Job, retry: Retry) -> RunFailure | None:
    """A sharded Job whose pods have used more than the budget is not waited for."""
    application = stage.application_retries > retry.application
    failure = FailureClass.APPLICATION if application else FailureClass.INFRASTRUCTURE
    return exhausted(stage, iteration, retry, last_words(job, failure))


def _counted(stage: StageStatus, job: Job) -> StageStatus:
    """With its start, and the retries inside a sharded Job, which this Job's own bases keep from being counted twice."""
    started = [pod.started_at for pod in job.pods if pod.started_at is not None]
    update: dict[str, object] = {}
    if stage.start_time is None and started:
        update["start_time"] = min(started)
    if is_sharded(job):
        infrastructure = job.infrastructure_base + ignored_pods(job)
        application = job.application_base + application_failures(job)
        update["infrastructure_retries"] = max(stage.infrastructure_retries, infrastructure)
        update["application_retries"] = max(stage.application_retries, application)
    return stage.model_copy(update=update)


def _succeeded(
    status: RLHFRunStatus, iteration: int | None, stage: StageStatus, result: StageResult, config: StageConfig, at: datetime
) -> Absorbed:
    artifact = None
    if result.artifact is not None:
        url = f"{config.storage.url}/{STAGE_ARTIFACT[stage.name]}/{result.artifact.fingerprint}"
        artifact = ArtifactStatus(
            url=url, digest=result.artifact.digest, fingerprint=result.artifact.fingerprint, folder=result.folder
        )
    done = stage.model_copy(
        update={
            "phase": Phase.SUCCEEDED,
            "completion_time": at,
            "retry_at": None,
            "adopted": isinstance(config.work, ResolveWork) or result.found,
            "resolving": False,
            "artifact": artifact,
            "metrics": dict(result.metrics),
            "benchmarks": list(result.benchmarks) or None,
            "reason": None,
            "message": clip(" ".join(result.warnings)),
        }
    )
    status = _with_totals(status, iteration, done)
    if stage.name is StageName.PREFLIGHT:
        known = {"resolved": dict(result.resolved), "adoptable": result.adoptable, "format": format_of(result.resolved)}
        status = status.model_copy(update=known)
    return Absorbed(status, warnings=tuple(result.warnings))


def _lost(status: RLHFRunStatus, iteration: int | None, stage: StageStatus, message: str, retry: Retry, now: datetime) -> Absorbed:
    """Never run again blindly: the next attempt looks the artifact up."""
    counted = booked(stage, FailureClass.INFRASTRUCTURE)
    if failure := exhausted(counted, iteration, retry, message):
        return Absorbed(_with_totals(status, iteration, _for_good(counted)), failure)
    retry_at = now + wait_before_retry(counted, FailureClass.INFRASTRUCTURE, retry)
    looked_up = next_attempt(counted, resolving=True, retry_at=retry_at, message=message)
    return Absorbed(_with_totals(status, iteration, looked_up))


def _failed(
    status: RLHFRunStatus, iteration: int | None, stage: StageStatus, job: Job, failed: Failed, retry: Retry, now: datetime
) -> Absorbed:
    stage = stage.model_copy(update={"reason": failed.reason})
    if failed.failure is FailureClass.CONFIGURATION:
        message = f"{sentence(stage_of(iteration, stage.name))} cannot run as the manifest says. {failed.message}"
        failure = RunFailure(Reason.CONFIGURATION_ERROR, message)
        return Absorbed(_with_totals(status, iteration, _for_good(stage)), failure)
    counted_inside = is_sharded(job) and failed.failure is FailureClass.APPLICATION
    counted = stage if counted_inside else booked(stage, failed.failure)
    if exhaustion := exhausted(counted, iteration, retry, failed.message):
        return Absorbed(_with_totals(status, iteration, _for_good(counted)), exhaustion)
    retried = next_attempt(
        counted,
        resolving=job.resolving or not failed.conclusive,
        retry_at=now + wait_before_retry(counted, failed.failure, retry),
        message=failed.message,
    )
    return Absorbed(_with_totals(status, iteration, retried))


def _for_good(stage: StageStatus) -> StageStatus:
    return stage.model_copy(update={"phase": Phase.FAILED})


def _ended_at(job: Job, now: datetime) -> datetime:
    return max((pod.finished_at for pod in job.pods if pod.finished_at is not None), default=now)


def _with_totals(status: RLHFRunStatus, iteration: int | None, stage: StageStatus) -> RLHFRunStatus:
    changed = with_stage(status, iteration, stage)
    return changed.model_copy(update={"totals": totals(changed, 0.0)})
