"""Where a run stands in its status: the stages that are begun and not over, and how to write one back.

The chain has at most one of them; beside it there may be others, which the chain does not wait for (ADR 0028).
"""

from __future__ import annotations

from collections.abc import Iterator

from rlhf_api.resource.status import IterationStatus, RLHFRunStatus, StageStatus
from rlhf_api.words import Phase


def stages_of(status: RLHFRunStatus) -> Iterator[tuple[int | None, StageStatus]]:
    """All stages with their iteration, None for those of the run."""
    for stage in status.stages:
        yield None, stage
    for iteration in status.iterations:
        for stage in iteration.stages:
            yield iteration.number, stage


def current_stage(status: RLHFRunStatus) -> tuple[int | None, StageStatus] | None:
    """The stage of the chain that was begun and has not succeeded: at most one."""
    for iteration, stage in stages_of(status):
        if stage.phase is not Phase.SUCCEEDED and not stage.beside:
            return iteration, stage
    return None


def stage_at_work(status: RLHFRunStatus) -> tuple[int | None, StageStatus] | None:
    """What is shown of a run: the chain's stage, or where the chain waits, the first beside it."""
    return current_stage(status) or next(unfinished_stages(status), None)


def unfinished_stages(status: RLHFRunStatus) -> Iterator[tuple[int | None, StageStatus]]:
    """Those that were begun and are not over, the chain's first."""
    going_on = [(iteration, stage) for iteration, stage in stages_of(status) if not stage.phase.finished]
    yield from sorted(going_on, key=lambda entry: bool(entry[1].beside))


def with_stage(status: RLHFRunStatus, iteration: int | None, stage: StageStatus) -> RLHFRunStatus:
    """Replace the stage of this name, or add it."""
    if iteration is None:
        return status.model_copy(update={"stages": _replaced(status.stages, stage)})
    known = iteration_of(status, iteration)
    changed = known.model_copy(update={"stages": _replaced(known.stages, stage)})
    return with_iteration(status, changed)


def iteration_of(status: RLHFRunStatus, number: int) -> IterationStatus:
    return next((entry for entry in status.iterations if entry.number == number), IterationStatus(number=number))


def with_iteration(status: RLHFRunStatus, changed: IterationStatus) -> RLHFRunStatus:
    others = [entry for entry in status.iterations if entry.number != changed.number]
    return status.model_copy(update={"iterations": sorted([*others, changed], key=lambda entry: entry.number)})


def _replaced(stages: list[StageStatus], stage: StageStatus) -> list[StageStatus]:
    if any(known.name is stage.name for known in stages):
        return [stage if known.name is stage.name else known for known in stages]
    return [*stages, stage]
