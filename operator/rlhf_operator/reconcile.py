"""The one reconcile: observe, decide, write the status, act. All state is in the run; a crash between any two lines is harmless."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from rlhf_operator.core.actions import (
    Action,
    CreateConfigMap,
    CreateJob,
    CreateNetworkPolicy,
    CreateService,
    EmitEvent,
    RemoveChildren,
)
from rlhf_operator.core.decide import Decision, decide

from .ports import Backend, Clock, Seen

#: After a lost race for the status, or an action that could not be carried out.
_SOON = timedelta(seconds=1)
_POLICY = "the run's network policy"


@dataclass(frozen=True)
class Reconciled:
    """What a round saw, what it decided, and when to look again (None: when something changes)."""

    seen: Seen
    decision: Decision
    requeue_after: timedelta | None
    carried_out: bool
    """The status was written, where it had changed, and every action done."""


def reconcile(backend: Backend, clock: Clock) -> Reconciled | None:
    """One round; None where the run is gone."""
    seen = backend.observe(live=False)
    if seen is None:
        return None
    decision = decide(seen.run, seen.observed, clock.now())
    if decision.observe_live:
        seen = backend.observe(live=True)
        if seen is None:
            return None
        decision = decide(seen.run, seen.observed, clock.now())
    if not _carry_out(backend, seen, decision):
        # What was refused before is tried at the pace of the decision.
        known = decision.requeue_after if seen.observed.refusals else None
        return Reconciled(seen, decision, known or _SOON, carried_out=False)
    return Reconciled(seen, decision, decision.requeue_after, carried_out=True)


def _carry_out(backend: Backend, seen: Seen, decision: Decision) -> bool:
    """The status goes first, also where it is unchanged but actions follow: whoever holds an old status must lose before acting."""
    acts = any(not isinstance(action, EmitEvent) for action in decision.actions)
    if (acts or decision.status != seen.run.status) and not backend.write_status(seen, decision.status):
        return False
    refused: set[str] = set()
    for action in decision.actions:
        if refused.isdisjoint(_needs(action)) and not backend.apply(seen.run, action):
            refused.add(_what(action))
    return not refused


def _needs(action: Action) -> tuple[str, ...]:
    """What must not have been refused before it: an attempt's children have one name, and none begins without the run's policy."""
    if isinstance(action, CreateConfigMap | CreateService | CreateJob):
        return action.name, _POLICY
    return ()


def _what(action: Action) -> str:
    if isinstance(action, EmitEvent | RemoveChildren):
        return type(action).__name__
    return _POLICY if isinstance(action, CreateNetworkPolicy) else action.name
