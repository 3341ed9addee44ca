"""What a person reads of a stage that is not over: what it does, or what it waits for."""

from __future__ import annotations

from datetime import datetime

from rlhf_api.words import Phase, Reason
from rlhf_operator.core.observed import Job, Refusal
from rlhf_operator.core.status.sentences import sentence, stage_of

from .letting_go import lingering
from .lines import Line, holds


def told(line: Line, job: Job | None, refusal: Refusal | None, iterations: int, now: datetime) -> tuple[Reason, str]:
    """`job`: of the attempt at work; `refusal`: of what would start one."""
    stage = line.stage
    assert stage is not None  # noqa: S101 - who asks has looked
    name = sentence(stage_of(line.iteration, stage.name, iterations))
    if job is not None and job.hindrance is not None:
        return job.hindrance.reason, f"{name} waits: {job.hindrance.message}"
    if refusal is not None and stage.phase is Phase.PENDING:
        return refusal.reason or Reason.RUNNING, f"{name} cannot start yet: {refusal.message}"
    held = next((other for other in line.former if holds(other)), job)
    doing = "looks its artifact up" if stage.resolving else "is running" if stage.phase is Phase.RUNNING else "is starting"
    if stage.retry_at is not None and stage.retry_at > now:
        doing = f"waits until {stage.retry_at:%H:%M:%S} for attempt {stage.attempt}"
    elif held is not None and held is not job:
        doing = f"waits until the pods of {held.name} have ended"
    words = (f"{name} {doing}.", "" if held is None else lingering(held.pods), stage.message)
    return Reason.RUNNING, " ".join(word for word in words if word)
