"""The order of a round: the status goes first, and whoever holds an old one does nothing at all."""

from __future__ import annotations

from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase
from rlhf_operator.core.actions import Action, CreateConfigMap, EmitEvent
from rlhf_operator.core.observed import Observed
from rlhf_operator.ports import Seen
from rlhf_operator.reconcile import reconcile
from support.runs import run_of
from support.simulation import World
from support.tape import Clock


class Recorder:
    """A backend that writes down what is asked of it."""

    def __init__(self, run: RLHFRun, *, wins: bool = True, refuses: type | None = None) -> None:
        self.run = run
        self.wins = wins
        self.refuses = refuses
        self.asked: list[str] = []

    def observe(self, *, live: bool) -> Seen | None:
        self.asked.append("observe live" if live else "observe")
        return Seen(self.run, Observed(live=live))

    def write_status(self, seen: Seen, status: RLHFRunStatus) -> bool:
        self.asked.append("write status")
        if self.wins:
            self.run = self.run.model_copy(update={"status": status})
        return self.wins

    def apply(self, run: RLHFRun, action: Action) -> bool:
        if not isinstance(action, EmitEvent):
            self.asked.append(type(action).__name__)
        return type(action) is not self.refuses


START = ["CreateNetworkPolicy", "CreateConfigMap", "CreateJob"]


def test_it_observes_live_before_it_acts_and_writes_the_status_first() -> None:
    backend = Recorder(run_of())
    reconcile(backend, Clock())
    assert backend.asked == ["observe", "observe live", "write status", *START]


def test_the_status_is_written_also_where_only_actions_follow() -> None:
    backend = Recorder(run_of())
    clock = Clock()
    reconcile(backend, clock)
    backend.asked.clear()
    reconcile(backend, clock)
    assert backend.asked == ["observe", "observe live", "write status", *START]


def test_whoever_loses_the_race_for_the_status_does_nothing_and_comes_back_soon() -> None:
    backend = Recorder(run_of(), wins=False)
    reconciled = reconcile(backend, Clock())
    assert backend.asked == ["observe", "observe live", "write status"]
    assert reconciled is not None
    assert reconciled.requeue_after is not None
    assert reconciled.requeue_after.total_seconds() <= 1


def test_an_action_that_fails_ends_the_round() -> None:

    backend = Recorder(run_of(), refuses=CreateConfigMap)
    reconcile(backend, Clock())
    assert backend.asked[-1] == "CreateConfigMap"


def test_nothing_is_written_when_nothing_changes() -> None:
    world = World(run_of())
    while world.run.status is None or not world.run.status.phase.finished:
        reconcile(world, world.clock)
        world.step()
    version = world.version
    for _ in range(3):
        reconcile(world, world.clock)
    assert world.version == version


def test_a_run_that_is_gone_is_let_go() -> None:
    class Gone(Recorder):
        def observe(self, *, live: bool) -> Seen | None:
            return None

    assert reconcile(Gone(run_of()), Clock()) is None


def test_a_run_that_works_writes_no_status_while_nothing_happens() -> None:
    world = World(run_of(), fate=lambda action, pod, tape: None)
    for _ in range(5):
        reconcile(world, world.clock)
        world.step()
    assert world.run.status is not None
    assert world.run.status.phase is Phase.RUNNING
    version = world.version
    world.clock.advance(3600)
    reconcile(world, world.clock)
    assert world.version == version
