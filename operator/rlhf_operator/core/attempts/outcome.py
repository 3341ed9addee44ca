"""How an attempt ended, read from its Job: success, nothing found, a failure with its class, or no readable word at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from rlhf_api.stage import ResolveWork, StageConfig, StageResult
from rlhf_api.words import STAGE_ARTIFACT, Reason, StageExit
from rlhf_operator.core.jobs.execution import SHARDED
from rlhf_operator.core.observed import Job, JobPhase, Pod, PodState

_KILLED = 137  # 128 + SIGKILL
_INFRASTRUCTURE_EXITS = frozenset({StageExit.TRANSIENT, StageExit.PREEMPTED, _KILLED})
#: Ends that a sharded Job replaces without counting them against the index (podFailurePolicy Ignore).
IGNORED_EXITS = frozenset({StageExit.TRANSIENT, StageExit.PREEMPTED})
#: Between the first death in a gang and the verdict, where its Job does not know of it: kubelets tell of the others meanwhile.
_PEERS_ARE_TOLD = timedelta(seconds=10)


class FailureClass(StrEnum):
    CONFIGURATION = "configuration"
    """Fails the run at once."""
    INFRASTRUCTURE = "infrastructure"
    APPLICATION = "application"


@dataclass(frozen=True)
class Succeeded:
    result: StageResult


@dataclass(frozen=True)
class NotFound:
    """A resolve attempt says that the artifact does not exist."""


@dataclass(frozen=True)
class Lost:
    """It ended well, or is gone, without a result that can be read: the artifact may exist."""

    message: str


@dataclass(frozen=True)
class NeverBegan:
    """No pod of it was ever made, and none will be."""


@dataclass(frozen=True)
class Failed:
    failure: FailureClass
    reason: Reason | None
    message: str
    conclusive: bool
    """Every process said itself why it failed, so none can have sealed the artifact before it died."""


Outcome = Succeeded | NotFound | Lost | NeverBegan | Failed


def outcome_of(job: Job, config: StageConfig, now: datetime) -> Outcome | None:
    """None while it is not over. `config` is the attempt's; its fingerprint is what a result must be about."""
    successes = [
        result for result in _results(job) if _is_success(result, config) and (result.artifact is not None or job.succeeded)
    ]
    if successes:
        # Of workers that seal at the same time one made the artifact, and the others found it: what this run made, it may remove.
        return Succeeded(next((result for result in successes if not result.found), successes[0]))
    if not job.ended and not _over_unknown_to_its_job(job, now):
        return None
    if job.never_began:
        return NeverBegan()
    if not job.succeeded:
        return _failure(job)
    if job.resolving and any(result.artifact is None and result.problem is None for result in _results(job)):
        return NotFound()
    return Lost("It ended with exit code 0 and without a result that can be read.")


def is_sharded(job: Job) -> bool:
    """An index of it is retried by itself."""
    return job.stage in SHARDED and not job.resolving


def until_over(job: Job, now: datetime) -> timedelta | None:
    """Until a gang whose Job does not know that a node of it failed is over for that; None: nothing of the kind."""
    deaths = [pod.finished_at or now for pod in job.last_pods if pod.lingers and pod.state is PodState.FAILED]
    if not deaths or job.phase is not JobPhase.ACTIVE or is_sharded(job):
        return None
    return max(min(deaths) + _PEERS_ARE_TOLD - now, timedelta(0))


def _over_unknown_to_its_job(job: Job, now: datetime) -> bool:
    """Where pods go on after their stage's container: what would have ended the Job, had they ended."""
    last = job.last_pods
    lingering = [pod for pod in last if pod.lingers]
    if job.phase is not JobPhase.ACTIVE or not lingering:
        return False
    if is_sharded(job):
        # Of what fails otherwise the Job makes another pod, once that one is let go.
        failed = [pod for pod in lingering if pod.state is PodState.FAILED]
        return job.succeeded or any(classify(pod) is FailureClass.CONFIGURATION for pod in failed)
    wait = until_over(job, now)
    return job.succeeded or (wait is not None and (not wait or all(pod.state.ended for pod in last)))


def classify(pod: Pod) -> FailureClass:
    """The class of one failed pod (the table in docs/api.md). The order is that of a Job's podFailurePolicy."""
    if pod.exit_code == StageExit.CONFIGURATION:
        return FailureClass.CONFIGURATION
    if pod.disrupted:
        return FailureClass.INFRASTRUCTURE
    if pod.reason in (Reason.OOM_KILLED, "Evicted"):
        return FailureClass.APPLICATION
    if pod.exit_code is None or pod.exit_code in _INFRASTRUCTURE_EXITS:
        return FailureClass.INFRASTRUCTURE
    return FailureClass.APPLICATION


def ignored_pods(job: Job) -> int:
    """Pods that a sharded Job replaced, or will replace, without counting them: the operator counts them as infrastructure."""
    return sum(pod.state is PodState.FAILED and is_ignored(pod) for pod in job.pods)


def is_ignored(pod: Pod) -> bool:
    return pod.exit_code != StageExit.CONFIGURATION and (pod.disrupted or pod.exit_code in IGNORED_EXITS)


def application_failures(job: Job) -> int:
    """The most application errors of any one index."""
    by_index: dict[int, int] = {}
    for pod in job.pods:
        if pod.state is PodState.FAILED and classify(pod) is FailureClass.APPLICATION:
            by_index[pod.index] = by_index.get(pod.index, 0) + 1
    return max(by_index.values(), default=0)


def last_words(job: Job, failure: FailureClass) -> str:
    """How the newest pod that failed in this way ended; for a Job that still runs and has replaced it."""
    earliest = datetime.min.replace(tzinfo=UTC)
    failed = [pod for pod in job.pods if pod.state is PodState.FAILED and classify(pod) is failure]
    newest = max(failed, key=lambda pod: pod.finished_at or earliest, default=None)
    return "Its pods are gone, and left no word." if newest is None else _message(newest)


def _is_success(result: StageResult, config: StageConfig) -> bool:
    target = config.work.target if isinstance(config.work, ResolveWork) else config.stage
    if result.problem is not None or result.stage not in (config.stage, target):
        return False
    if target not in STAGE_ARTIFACT:
        return True
    return result.artifact is not None and result.artifact.fingerprint == config.fingerprint


def _failure(job: Job) -> Failed:
    failed = [pod for pod in job.last_pods if pod.state is PodState.FAILED]
    if not failed:
        message = "Its Job failed and left no pod that says why."
        return Failed(FailureClass.INFRASTRUCTURE, None, message, conclusive=False)
    root = _root_cause(failed)
    return Failed(classify(root), _reason(root), _message(root), _all_spoke(job.pods))


def _all_spoke(pods: Iterable[Pod]) -> bool:
    """Also those that were replaced, and no index is without a pod: a pod that is gone may have sealed and not said so."""
    seen = list(pods)
    indexes = {pod.index for pod in seen}
    return indexes == set(range(len(indexes))) and all(pod.result is not None for pod in seen)


def _root_cause(failed: list[Pod]) -> Pod:
    """The first to end: what its peers do then (NCCL aborts, SIGTERM from the Job) is a consequence. Configuration goes first."""
    latest = datetime.max.replace(tzinfo=UTC)

    def order(pod: Pod) -> tuple[bool, datetime, bool, int]:
        configuration = classify(pod) is FailureClass.CONFIGURATION
        return not configuration, pod.finished_at or latest, not pod.disrupted, pod.index

    return min(failed, key=order)


def _reason(pod: Pod) -> Reason | None:
    if classify(pod) is FailureClass.CONFIGURATION:
        return Reason.CONFIGURATION_ERROR
    said = pod.result.reason if pod.result is not None else None
    for word in (pod.reason, said):
        if word in set(Reason):
            return Reason(word)
    return Reason.PREEMPTED if pod.disrupted or pod.exit_code == StageExit.PREEMPTED else None


def _message(pod: Pod) -> str:
    code = "without an exit code (its node or supervisor is gone)" if pod.exit_code is None else f"with exit code {pod.exit_code}"
    reason = f" ({pod.reason})" if pod.reason else ""
    if pod.result is not None and pod.result.problem:
        return f"It ended {code}{reason}: {pod.result.problem}"
    return f"It ended {code}{reason} and left no word of its own; its log may say more."


def _results(job: Job) -> list[StageResult]:
    return [pod.result for pod in job.pods if pod.result is not None]
