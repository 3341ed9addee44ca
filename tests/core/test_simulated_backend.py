"""The simulation keeps the contract of a backend: what the property tests show of it they show of backends."""

from __future__ import annotations

import pytest

from rlhf_operator.core.actions import CreateJob
from rlhf_operator.core.observed import Job, Pod
from support.backend_contract import BackendContract, Harness, contract_run
from support.simulation import World
from support.tape import DONE, DONE_AND_LOST, End, Tape


class SimulatedHarness(Harness):
    def __init__(self) -> None:
        self.world = World(contract_run("s3://bucket/tiny"), fate=self._fate)
        self.backend = self.world
        self.clock = self.world.clock
        self._plans: dict[str, list[str]] = {}
        self._current: dict[tuple[str, int, int], str] = {}
        self._killed: set[str] = set()

    def plan(self, stage: str, *plans: str) -> None:
        self._plans[stage] = list(plans)

    def wait(self) -> None:
        self.world.step()

    def kill(self, job: Job) -> None:
        self._killed.add(job.name)

    def _fate(self, action: CreateJob, pod: Pod, tape: Tape) -> End | None:
        if action.name in self._killed:
            return End(137, speaks=False)
        plan = self._plan_of(action, pod).split()
        match plan:
            case ["exit", code]:
                return End(int(code))
            case ["silent", code]:
                return End(int(code), speaks=False)
            case ["no-result"]:
                return DONE_AND_LOST
            case ["hang"]:
                return None
            case _:
                return DONE

    def _plan_of(self, action: CreateJob, pod: Pod) -> str:
        """One plan a start: a pod keeps its own."""
        starts = sum(other.index == pod.index for other in self.world.jobs[action.name].job.pods)
        start = (action.name, pod.index, starts)
        if start not in self._current:
            label = f"{'resolve:' if action.resolving else ''}{action.stage}-{action.iteration or 0}"
            plans = self._plans.get(f"{label}-{pod.index}") or self._plans.get(label) or [""]
            self._current[start] = plans.pop(0)
        return self._current[start]


class TestSimulatedBackend(BackendContract):
    @pytest.fixture
    def harness(self) -> SimulatedHarness:
        return SimulatedHarness()
