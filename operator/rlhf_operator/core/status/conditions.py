"""Conditions of a run, and its one message: what a person reads first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rlhf_api.resource.status import Condition, ConditionStatus, RLHFRunStatus
from rlhf_api.words import ConditionType, Phase, Reason

from .sentences import clip


@dataclass(frozen=True)
class Standing:
    """How the run stands after a decision."""

    phase: Phase
    reason: Reason
    message: str


def with_standing(status: RLHFRunStatus, standing: Standing, generation: int | None, now: datetime) -> RLHFRunStatus:
    """Phase, message and all conditions; a condition keeps its time while its status stays the same."""
    completion = status.completion_time or (now if standing.phase.finished else None)
    return status.model_copy(
        update={
            "phase": standing.phase,
            "message": clip(standing.message),
            "completion_time": completion,
            "conditions": list(_conditions(status, standing, generation, now)),
        }
    )


def _ready(standing: Standing) -> tuple[bool, Reason, str]:
    """A manifest that cannot be run, whoever found it out, was not accepted."""
    if standing.phase is Phase.FAILED and standing.reason is Reason.CONFIGURATION_ERROR:
        return False, standing.reason, standing.message
    return True, Reason.ACCEPTED, "The manifest is accepted."


def _conditions(status: RLHFRunStatus, standing: Standing, generation: int | None, now: datetime) -> Iterable[Condition]:
    known = {condition.type: condition for condition in status.conditions}
    progressing = standing.phase in (Phase.PENDING, Phase.RUNNING)
    values = {
        ConditionType.READY: _ready(standing),
        ConditionType.PROGRESSING: (progressing, standing.reason, standing.message),
        ConditionType.SUSPENDED: (standing.phase is Phase.SUSPENDED, standing.reason, standing.message),
        ConditionType.COMPLETE: (standing.phase is Phase.SUCCEEDED, standing.reason, standing.message),
        ConditionType.FAILED: (standing.phase is Phase.FAILED, standing.reason, standing.message),
    }
    for kind, (value, reason, message) in values.items():
        before = known.get(kind)
        if before is None and not value and kind not in (ConditionType.READY, ConditionType.PROGRESSING):
            continue
        word = ConditionStatus.TRUE if value else ConditionStatus.FALSE
        since = before.last_transition_time if before is not None and before.status is word else now
        yield Condition(
            type=kind,
            status=word,
            reason=reason,
            message=clip(message),
            last_transition_time=since,
            observed_generation=generation,
        )
