"""Events for people, from what changed between two statuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from rlhf_api.resource.status import GateVerdict, RLHFRunStatus, StageStatus
from rlhf_api.words import ConditionType, Phase, Reason, StageName
from rlhf_operator.core.actions import EmitEvent, EventKind
from rlhf_operator.core.cursor import stages_of

from .sentences import sentence, stage_of


def transitions(
    before: RLHFRunStatus,
    after: RLHFRunStatus,
    warnings: Mapping[tuple[int | None, StageName], Sequence[str]] = MappingProxyType({}),
) -> Iterator[EmitEvent]:
    """In the order in which things happened; `warnings` are those of stages that just ended well."""
    known = {(iteration, stage.name): stage for iteration, stage in stages_of(before)}
    for iteration, stage in stages_of(after):
        yield from _of_stage(iteration, known.get((iteration, stage.name)), stage, warnings.get((iteration, stage.name), ()))
    gates = {(entry.number, gate.name): gate for entry in before.iterations for gate in entry.gates}
    for entry in after.iterations:
        for gate in entry.gates:
            old = gates.get((entry.number, gate.name))
            if gate.verdict in (GateVerdict.TRIPPED, GateVerdict.APPROVED) and (old is None or old.verdict is not gate.verdict):
                message = f"Gate {gate.name} ({gate.action}): {gate.message}"
                yield EmitEvent(EventKind.GATE, None, message, entry.number)
    if after.phase is not before.phase:
        kind = EventKind.FAILED if after.phase is Phase.FAILED else EventKind.RUN
        yield EmitEvent(kind, _reason(after), f"{after.phase}: {after.message}")


def _of_stage(iteration: int | None, old: StageStatus | None, new: StageStatus, warnings: Sequence[str]) -> Iterator[EmitEvent]:
    def event(kind: EventKind, message: str, attempt: int = new.attempt) -> EmitEvent:
        return EmitEvent(kind, new.reason, message, iteration, new.name, attempt)

    name = sentence(stage_of(iteration, new.name))
    if new.phase is Phase.SUCCEEDED and (old is None or old.phase is not Phase.SUCCEEDED):
        if new.adopted:
            yield event(EventKind.ADOPTED, f"{name} is done already: its artifact is in the store.")
        else:
            yield event(EventKind.SUCCEEDED, f"{name} is done.")
        for warning in warnings:
            yield event(EventKind.WARNING, warning)
    elif new.phase is Phase.RUNNING and (old is None or old.phase is not Phase.RUNNING or old.attempt != new.attempt):
        doing = "looks its artifact up" if new.resolving else "started"
        yield event(EventKind.STARTED, f"{name} {doing} (attempt {new.attempt}).")
    elif new.beside and new.phase is Phase.FAILED and (old is None or old.phase is not Phase.FAILED):
        yield event(EventKind.WARNING, f"{name} is left out, and the run goes on without it. {new.message}")
    elif old is not None and new.attempt > old.attempt and old.phase is not Phase.SUSPENDED and _spent(new) > _spent(old):
        yield event(EventKind.RETRYING, f"{name} will be tried again. {new.message}", old.attempt)


def _spent(stage: StageStatus) -> int:
    return stage.infrastructure_retries + stage.application_retries


def _reason(status: RLHFRunStatus) -> Reason | None:
    return next((condition.reason for condition in status.conditions if condition.type is ConditionType.PROGRESSING), None)
