"""A chain and what is beside it, where something refuses, is stopped, or was written by another version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase, Reason, StageName
from rlhf_operator.core.actions import Action, CreateConfigMap, CreateJob, DeleteJob
from rlhf_operator.core.cursor import stages_of, with_stage
from rlhf_operator.core.decide import decide
from rlhf_operator.core.observed import Hindrance, JobPhase, PodState, Refusal
from rlhf_operator.ports import Seen
from rlhf_operator.reconcile import reconcile
from support.runs import BENCHMARKED, run_of, spec_of
from support.simulation import SimulatedJob, World
from support.story import Story
from support.tape import DONE, End

BENCHMARK = "tiny-i0-benchmark-1"


@dataclass
class Refusing(World):
    """Some actions are refused, and the backend tells of it."""

    refuses: Callable[[World, Action], Refusal | None] = lambda _world, _action: None
    told: dict[str, Refusal] = field(default_factory=dict)

    def apply(self, run: RLHFRun, action: Action) -> bool:
        refusal = self.refuses(self, action)
        if refusal is None:
            self.told.pop(getattr(action, "name", ""), None)
            return super().apply(run, action)
        self.told[refusal.name] = refusal
        return False

    def observe(self, *, live: bool) -> Seen | None:
        seen = super().observe(live=live)
        assert seen is not None
        return replace(seen, observed=replace(seen.observed, refusals=tuple(self.told.values())))


@dataclass
class OneGpu(World):
    """Pods wait until no other runs, as a scheduler has them."""

    def _get_on(self, simulated: SimulatedJob) -> None:
        others = [other.job for other in self.jobs.values() if other is not simulated]
        taken = any(pod.state is PodState.RUNNING for job in others for pod in job.pods)
        if not (taken and all(pod.state is PodState.PENDING for pod in simulated.job.pods)):
            super()._get_on(simulated)


def driven(world: World, rounds: int = 300) -> RLHFRunStatus:
    for _ in range(rounds):
        reconcile(world, world.clock)
        world.step()
    assert world.run.status is not None
    return world.run.status


def ended_badly(story: Story, name: str, exit_code: int) -> None:
    """The Job, as its controller leaves it when the pods did not end well."""
    simulated, now = story.world.jobs[name], story.world.clock.now()
    pods = tuple(replace(pod, state=PodState.FAILED, exit_code=exit_code, finished_at=now) for pod in simulated.job.pods)
    simulated.job = replace(simulated.job, phase=JobPhase.FAILED, pods=pods)


@pytest.mark.parametrize("exit_code", [143, 1, 64, 137])
@pytest.mark.parametrize(("iteration", "stage"), [(1, StageName.TRAIN), (None, StageName.BENCHMARK)])
def test_however_a_suspended_attempt_ends_it_is_suspended(iteration: int | None, stage: StageName, exit_code: int) -> None:
    """It was told to stop, and has no budget left: 143 is what a trainer says then, 137 what is made of one that is slow."""
    retry = {"application": 0, "infrastructure": 0, "backoffSeconds": 10}
    story = Story(iterations=1, evaluate=BENCHMARKED, retry=retry)
    story.until_running(iteration, stage)
    story.world.change_spec(suspend=True)
    reconcile(story.world, story.world.clock)
    ended_badly(story, f"tiny-i{iteration or 0}-{stage}-1", exit_code)
    reconcile(story.world, story.world.clock)
    assert (story.status.phase, story.stage(iteration, stage).phase) == (Phase.SUSPENDED, Phase.SUSPENDED)
    story.world.change_spec(suspend=False)
    assert story.to_the_end().phase is Phase.SUCCEEDED


def test_what_failed_says_why_in_its_own_line_too() -> None:
    story = Story(iterations=1)
    story.until_running(1, StageName.SAMPLE)
    story.hang_at, story.end = None, End(64)
    story.go_on(lambda: story.status.phase.finished)
    assert "It failed with 64." in story.stage(1, StageName.SAMPLE).message


def test_a_benchmark_that_was_given_up_makes_room_before_the_chain_asks_for_it() -> None:
    """A quota of one Job: the refused chain must not keep what holds the place."""

    def full(world: World, action: Action) -> Refusal | None:
        there = [job for job in world.present() if not job.ended or job.deleting]
        if isinstance(action, CreateJob) and action.name not in world.jobs and len(there) >= limit[0]:
            return Refusal(action.name, Reason.QUOTA_EXCEEDED, "exceeded quota: count/jobs.batch", world.clock.now())
        return None

    limit = [2]
    spec = spec_of(evaluate=BENCHMARKED, iterations=1, pendingDeadlineSeconds=600)
    world = Refusing(run_of(spec), refuses=full, fate=lambda action, _pod, _tape: None if action.name == BENCHMARK else DONE)
    while BENCHMARK not in world.jobs:
        reconcile(world, world.clock)
        world.step()
    held = world.jobs[BENCHMARK]
    pods = tuple(replace(pod, state=PodState.PENDING, started_at=None) for pod in held.job.pods)
    stuck = replace(held.job, hindrance=Hindrance(Reason.UNSCHEDULABLE, "0/3 nodes have a GPU free."), pods=pods)
    limit[0] = 1
    for _ in range(300):
        if BENCHMARK in world.jobs and not world.jobs[BENCHMARK].job.deleting:
            held.job = stuck
        reconcile(world, world.clock)
        world.step()
    assert world.run.status is not None
    assert world.run.status.phase is Phase.SUCCEEDED


@pytest.mark.parametrize(("kind", "name"), [(CreateJob, "tiny-i1-sample-1"), (CreateConfigMap, BENCHMARK)])
def test_what_is_refused_of_one_line_holds_no_other_up(kind: type[CreateJob | CreateConfigMap], name: str) -> None:
    def foreign(world: World, action: Action) -> Refusal | None:
        if isinstance(action, kind) and action.name == name:
            return Refusal(name, None, "an object of that name is not this run's.", world.clock.now())
        return None

    world = Refusing(run_of(spec_of(evaluate=BENCHMARKED, iterations=2)), refuses=foreign)
    status = driven(world)
    names = {job.name for job in world.created}
    assert name not in names
    assert {BENCHMARK, "tiny-i1-benchmark-1"} & names == ({BENCHMARK} if name != BENCHMARK else {"tiny-i1-benchmark-1"})
    assert "cannot start yet: an object of that name is not this run's." in status.message


def test_the_time_that_a_run_waits_for_its_own_benchmark_counts_against_no_deadline() -> None:
    """One GPU, no queue, and a benchmark of twenty minutes."""
    looks: dict[str, int] = {}

    def slow(action: CreateJob, *_: object) -> End | None:
        looks[action.name] = looks.get(action.name, 0) + 1
        return None if action.stage is StageName.BENCHMARK and looks[action.name] < 20 else DONE

    world = OneGpu(run_of(spec_of(evaluate=BENCHMARKED, iterations=1, pendingDeadlineSeconds=600)), fate=slow)
    assert driven(world).phase is Phase.SUCCEEDED


def test_a_benchmark_that_ended_well_in_the_round_in_which_the_chain_fails_is_done() -> None:
    story = Story(evaluate=BENCHMARKED, iterations=1)
    story.until_running(None, StageName.BENCHMARK)
    story.go_on(lambda: story.stage(1, StageName.SAMPLE).phase is Phase.RUNNING)
    story.world.fate = lambda action, _pod, _tape: End(64) if action.stage is StageName.SAMPLE else DONE
    for _ in range(4):
        for simulated in story.world.jobs.values():
            if not simulated.job.ended:
                story.world._get_on(simulated)
    reconcile(story.world, story.world.clock)
    done = story.stage(None, StageName.BENCHMARK)
    assert (story.status.phase, done.phase, done.lost_gpu_seconds) == (Phase.FAILED, Phase.SUCCEEDED, 0.0)


def test_a_benchmark_that_another_version_cancelled_is_left_out_and_waited_for_by_nobody() -> None:
    story = Story(evaluate=BENCHMARKED, iterations=1)
    story.until_running(None, StageName.BENCHMARK)
    seen = story.world.observe(live=True)
    assert seen is not None
    plain = story.run.model_copy(update={"spec": spec_of(iterations=1)})
    cancelled = decide(plain, seen.observed, story.world.clock.now()).status
    story.world.run = story.run.model_copy(update={"status": cancelled})
    assert story.to_the_end().message.endswith("Left out: benchmark of pi_0.")


@pytest.mark.parametrize("end", [DONE, End(64)])
def test_a_word_that_an_older_version_has_cut_off_is_written_again(end: End) -> None:
    """Its CRD, rolled back to and forward again. Without the word a benchmark would be the chain's."""
    story = Story(evaluate=BENCHMARKED, iterations=1)
    story.world.fate = lambda action, _pod, _tape: end if action.stage is StageName.BENCHMARK else DONE
    for _ in range(60):
        reconcile(story.world, story.world.clock)
        status = story.status
        for iteration, stage in list(stages_of(status)):
            status = with_stage(status, iteration, stage.model_copy(update={"beside": None}))
        story.world.run = story.run.model_copy(update={"status": status})
        benchmarks = {job.name for job in story.world.present() if job.stage is StageName.BENCHMARK}
        deleted = {action.name for action in story.decide().actions if isinstance(action, DeleteJob)}
        assert not benchmarks & deleted
        story.world.step()
    assert story.status.phase is Phase.SUCCEEDED


def test_a_run_that_a_gate_stopped_says_so_while_it_waits_for_a_benchmark() -> None:
    gates = [{"name": "stop", "metric": "winRateVsInitial", "max": 0.1, "action": "Stop"}]
    story = Story(evaluate=BENCHMARKED, iterations=3, gates=gates)
    story.until_running(None, StageName.BENCHMARK)
    story.go_on(lambda: story.stage(1, StageName.BENCHMARK).phase is Phase.SUCCEEDED)
    reconcile(story.world, story.world.clock)
    assert story.status.message.startswith("Gate stop stopped the run after iteration 1")
