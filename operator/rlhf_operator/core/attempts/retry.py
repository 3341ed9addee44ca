"""What follows an attempt that did not succeed: another one, after a wait, while the stage's budget of that class lasts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from rlhf_api.resource.compute import Retry
from rlhf_api.resource.status import StageStatus
from rlhf_api.words import STAGE_ARTIFACT, Phase, Reason
from rlhf_operator.core.status.sentences import clip, sentence, stage_of

from .outcome import FailureClass

_LONGEST_WAIT = 3600.0
#: 2 ** 12 s are more than the longest wait.
_LARGEST_EXPONENT = 12


@dataclass(frozen=True)
class RunFailure:
    """The run is over."""

    reason: Reason
    message: str


def next_attempt(stage: StageStatus, *, resolving: bool, retry_at: datetime | None = None, message: str = "") -> StageStatus:
    """The stage, waiting for its next attempt; the budgets stay as they are. Only what seals an artifact can be resolved."""
    return stage.model_copy(
        update={
            "phase": Phase.PENDING,
            "attempt": stage.attempt + 1,
            "resolving": resolving and stage.name in STAGE_ARTIFACT,
            "retry_at": retry_at,
            "message": clip(message),
        }
    )


def booked(stage: StageStatus, failure: FailureClass) -> StageStatus:
    """One failure of this class on the stage's account."""
    if failure is FailureClass.INFRASTRUCTURE:
        return stage.model_copy(update={"infrastructure_retries": stage.infrastructure_retries + 1})
    return stage.model_copy(update={"application_retries": stage.application_retries + 1})


def exhausted(stage: StageStatus, iteration: int | None, retry: Retry, message: str) -> RunFailure | None:
    """Has the stage used more than its budget? `message` says how the last attempt ended."""
    if stage.application_retries > retry.application:
        return _exhausted(stage, iteration, "application", stage.application_retries, retry.application, message)
    if stage.infrastructure_retries > retry.infrastructure:
        return _exhausted(stage, iteration, "infrastructure", stage.infrastructure_retries, retry.infrastructure, message)
    return None


def wait_before_retry(stage: StageStatus, failure: FailureClass, retry: Retry) -> timedelta:
    """Application: backoffSeconds, doubled each time, up to an hour. Infrastructure: 0, 1, 3, 7 … s up to backoffSeconds."""
    if failure is FailureClass.APPLICATION:
        exponent = min(stage.application_retries - 1, _LARGEST_EXPONENT)
        return timedelta(seconds=min(retry.backoff_seconds * 2.0**exponent, _LONGEST_WAIT))
    exponent = min(stage.infrastructure_retries - 1, _LARGEST_EXPONENT)
    return timedelta(seconds=min(2.0**exponent - 1.0, retry.backoff_seconds))


def _exhausted(stage: StageStatus, iteration: int | None, budget: str, used: int, allowed: int, message: str) -> RunFailure:
    times = "once" if used == 1 else f"{used} times"
    return RunFailure(
        Reason.RETRY_BUDGET_EXHAUSTED,
        f"{sentence(stage_of(iteration, stage.name))} failed {times} and retry.{budget} is {allowed}. {message} "
        "Remove the cause and apply the run again: finished stages are found in the store, not run again.",
    )
