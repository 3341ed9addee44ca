"""One run in the simulated world, told step by step: for tests of what is decided next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import ConditionStatus, RLHFRunStatus, StageStatus
from rlhf_api.words import ConditionType, Phase, Reason, StageName
from rlhf_operator.core.actions import (
    CreateJob,
    EmitEvent,
)
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.core.decide import Decision, decide
from rlhf_operator.core.observed import Pod, PodState
from rlhf_operator.reconcile import reconcile
from support.runs import run_of, spec_of
from support.simulation import World
from support.tape import DONE, End, Tape


class Story:
    """A world in which stages hang until they are told how to end."""

    def __init__(self, **changes: Any) -> None:
        self.end: End | None = DONE
        self.hang_at: tuple[int | None, StageName] | None = None
        self.world = World(run_of(spec_of(**changes)), fate=self._fate)

    def until_running(self, iteration: int | None, stage: StageName) -> StageStatus:
        self.hang_at = (iteration, stage)
        return self.go_on(lambda: self.stage(iteration, stage).phase is Phase.RUNNING and self._runs()).stage(iteration, stage)

    def go_on(self, until: Callable[[], bool]) -> Story:
        for _ in range(300):
            reconcile(self.world, self.world.clock)
            if until():
                return self
            self.world.step()
        raise AssertionError(f"it never came to this: {self.status}")

    def to_the_end(self) -> RLHFRunStatus:
        self.hang_at = None
        return self.go_on(lambda: self.status.phase.finished).status

    def decide(self, **observed: Any) -> Decision:
        seen = self.world.observe(live=True)
        assert seen is not None
        return decide(seen.run, replace(seen.observed, **observed), self.world.clock.now())

    @property
    def run(self) -> RLHFRun:
        return self.world.run

    @property
    def status(self) -> RLHFRunStatus:
        return self.world.run.status or RLHFRunStatus()

    def stage(self, iteration: int | None, stage: StageName) -> StageStatus:
        nothing = StageStatus(name=stage, phase=Phase.PENDING)
        return next((entry for number, entry in stages_of(self.status) if (number, entry.name) == (iteration, stage)), nothing)

    def condition(self, kind: ConditionType) -> tuple[ConditionStatus, Reason] | None:
        return next(((item.status, item.reason) for item in self.status.conditions if item.type is kind), None)

    def _runs(self) -> bool:
        return any(pod.state is PodState.RUNNING for simulated in self.world.jobs.values() for pod in simulated.job.pods)

    def _fate(self, action: CreateJob, pod: Pod, tape: Tape) -> End | None:
        return None if (action.iteration, action.stage) == self.hang_at else self.end


def created(decision: Decision) -> list[type]:
    """The kinds of a decision's actions, without Events."""
    return [type(action) for action in decision.actions if not isinstance(action, EmitEvent)]
