"""Changes to a run's spec: what `kubectl edit` would do, for the fields that may change.

Whoever drives the run, the operator or a local process, reads the spec in each round, so a change reaches it while it works.
Each function returns what it did, as a sentence.
"""

from __future__ import annotations

from typing import Any

from rlhf_api import RLHFRun
from rlhf_api.resource.evaluation import Approval, GateAction
from rlhf_api.resource.labeler import Annotations
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.status import GateVerdict, RLHFRunStatus
from rlhfctl.client.annotations import is_known
from rlhfctl.errors import Conflict, NotFound, UsageProblem, hint_for
from rlhfctl.sources.source import Source, phase_of


def suspend(source: Source, name: str) -> str:
    return _set(source, name, "is to be suspended", suspend=True)


def resume(source: Source, name: str) -> str:
    return _set(source, name, "is to go on", suspend=False)


def cancel(source: Source, name: str) -> str:
    return _set(source, name, "is to be cancelled", cancel=True)


def approve(source: Source, name: str, gate: str | None, iteration: int | None) -> str:
    """Append the approval of the gate that waits.

    Raises:
        NotFound, UsageProblem: as `waiting_gate` does.
    """
    run = source.load(name)
    approval = waiting_gate(run, gate, iteration)
    changed = _change(run, source, approvals=[*run.spec.approvals, approval])
    return _done(changed, source, f"gate {approval.gate!r} of iteration {approval.iteration} is approved")


def annotate(source: Source, run: RLHFRun, entry: Annotations) -> str:
    """Append what people answered. Raises Conflict: the run has other answers to the iteration, maybe since a moment ago."""
    name = run.metadata.name

    def append(spec: RLHFRunSpec) -> RLHFRunSpec:
        # Of two who import at once the second must not take back what the first wrote.
        known = is_known(entry, name, spec)
        return spec if known else spec.model_copy(update={"annotations": [*spec.annotations, entry]})

    return _done(source.change(name, append), source, f"the answers to iteration {entry.iteration} are imported")


def _set(source: Source, name: str, what: str, **fields: Any) -> str:
    return _done(_change(source.load(name), source, **fields), source, f"{name} {what}")


def _change(run: RLHFRun, source: Source, **fields: Any) -> RLHFRun:
    """Write `fields` into the run's spec.

    Raises:
        Conflict: the run has ended.
    """
    name, phase = run.metadata.name, phase_of(run)
    if phase.finished:
        raise Conflict(f"run {name!r} has ended ({phase.value}): nothing of it can change any more")
    return source.change(name, lambda spec: spec.model_copy(update=fields))


def _done(run: RLHFRun, source: Source, what: str) -> str:
    return f"{what}; {source.carried_out_by(run)}"


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
