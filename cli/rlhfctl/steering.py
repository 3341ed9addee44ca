"""Changes to a local run's spec: what `kubectl edit` would do, for the fields that may change.

The process that drives the run reads its run.yaml in each round, so a change reaches it while it works.
"""

from __future__ import annotations

from typing import Any

from rlhf_api import RLHFRun
from rlhf_api.evaluation import Approval, GateAction
from rlhf_api.status import GateVerdict, RLHFRunStatus
from rlhf_operator.local import LocalState

from .errors import Conflict, NotFound, UsageProblem
from .local import backend_errors, run_command
from .suggest import hint_for
from .watching import phase_of


def change(run: RLHFRun, state: LocalState, **fields: Any) -> RLHFRun:
    """Write `fields` into the run's spec.

    Raises:
        Conflict: the run has ended.
    """
    name, phase = run.metadata.name, phase_of(run)
    if phase.finished:
        raise Conflict(f"run {name!r} has ended ({phase.value}): nothing of it can change any more")
    with backend_errors(state):
        return state.edit(name, lambda spec: spec.model_copy(update=fields))


def next_step(run: RLHFRun, state: LocalState, what: str) -> str:
    """A sentence: who carries the change out."""
    holder = state.holder(run.metadata.name)
    if holder is not None:
        return f"{what}; process {holder.pid}, which drives the run, carries it out"
    return f"{what}; no process drives the run now: {run_command(run, state.folder)}"


def waiting_gate(run: RLHFRun, gate: str | None, iteration: int | None) -> Approval:
    """The gate that paused the run; with `gate` and `iteration` that one.

    Raises:
        NotFound: no such gate, or none that waits.
        UsageProblem: several wait, and none was named.
    """
    name = run.metadata.name
    known = [item.name for item in run.spec.gates]
    if gate is not None and gate not in known:
        why = f"its gates are {', '.join(known)}" if known else "it has no gates"
        raise NotFound(f"run {name!r} has no gate {gate!r}", why=why, hints=hint_for(gate, known))
    found = [item for item in waiting(run) if gate in (None, item.gate) and iteration in (None, item.iteration)]
    if not found:
        raise NotFound(f"no gate of run {name!r} waits for this approval", why=f"the run is {phase_of(run).value}")
    if len(found) > 1:
        names = ", ".join(f"{item.gate} (iteration {item.iteration})" for item in found)
        raise UsageProblem(f"several gates of run {name!r} wait", why=names, hints=("name one of them",))
    return found[0]


def waiting(run: RLHFRun) -> list[Approval]:
    """Gates that tripped with action Pause and are not approved."""
    status = run.status or RLHFRunStatus()
    return [
        approval
        for item in status.iterations
        for gate in item.gates
        if gate.verdict == GateVerdict.TRIPPED
        and gate.action == GateAction.PAUSE
        and (approval := Approval(gate=gate.name, iteration=item.number)) not in run.spec.approvals
    ]
