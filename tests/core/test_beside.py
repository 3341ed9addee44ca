"""Stages beside the chain: the run goes on without them, waits for them at its end, and does not fall with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rlhf_api.resource.evaluation import Approval
from rlhf_api.resource.status import GateVerdict, StageStatus
from rlhf_api.words import ConditionType, Phase, Reason, StageName
from rlhf_operator.core.actions import CreateJob, DeleteJob, EventKind
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.core.decide import decide
from rlhf_operator.core.observed import Hindrance, JobPhase, Pod, Refusal
from rlhf_operator.reconcile import reconcile
from support.runs import AT_LEAST, AT_MOST_LOST, BENCHMARKED, run_of, spec_of
from support.simulation import World
from support.story import Story, created
from support.tape import DONE, End, Tape

BENCHMARK = "tiny-i0-benchmark-1"
SAMPLE = "tiny-i1-sample-1"


def benchmarked(**changes: Any) -> Story:
    """A run in which pi_0's benchmark is at work, and hangs."""
    story = Story(**{"evaluate": BENCHMARKED, "iterations": 1} | changes)
    story.until_running(None, StageName.BENCHMARK)
    return story


def ends(stage: StageName, end: End) -> Any:
    """Whatever this stage does ends so; everything else ends well."""

    def fate(action: CreateJob, _pod: Pod, _tape: Tape) -> End:
        return end if action.stage is stage else DONE

    return fate


def test_the_chain_goes_on_while_a_benchmark_is_at_work_and_finalize_waits_for_it() -> None:
    story = benchmarked()
    story.go_on(lambda: story.stage(1, StageName.EVALUATE).phase is Phase.SUCCEEDED)
    story.go_on(lambda: story.stage(1, StageName.BENCHMARK).phase is Phase.SUCCEEDED)
    assert story.stage(None, StageName.BENCHMARK).phase is Phase.RUNNING
    assert story.stage(None, StageName.FINALIZE) == StageStatus(name=StageName.FINALIZE, phase=Phase.PENDING)
    reconcile(story.world, story.world.clock)
    assert story.status.message == "All 1 iterations are done. Stage benchmark of pi_0 is running."
    assert (story.status.phase, story.status.stage) == (Phase.RUNNING, StageName.BENCHMARK)
    assert story.to_the_end().phase is Phase.SUCCEEDED
    assert [job.name for job in story.world.created if job.stage is StageName.BENCHMARK] == [BENCHMARK, "tiny-i1-benchmark-1"]


def test_both_are_told() -> None:
    story = benchmarked()
    story.go_on(lambda: story.stage(1, StageName.SAMPLE).phase is Phase.RUNNING)
    assert story.status.message == "Stage sample of iteration 1 of 1 is running. Stage benchmark of pi_0 is running."
    assert story.status.stage is StageName.SAMPLE


@pytest.mark.parametrize("end", [End(64), End(1), End(137, speaks=False)])
def test_a_benchmark_that_fails_for_good_is_left_out_told_and_named_at_the_end(end: End) -> None:
    retry = {"application": 2, "infrastructure": 3, "backoffSeconds": 10}
    world = World(run_of(spec_of(evaluate=BENCHMARKED, iterations=1, retry=retry)), fate=ends(StageName.BENCHMARK, end))
    for _ in range(100):
        reconcile(world, world.clock)
        world.step()
    status = world.run.status
    assert status is not None
    assert status.phase is Phase.SUCCEEDED
    assert status.message.endswith("Left out: benchmark of pi_0, benchmark of pi_1.")
    [failed] = [stage for stage in status.stages if stage.name is StageName.BENCHMARK]
    assert (failed.phase, bool(failed.message), failed.beside) == (Phase.FAILED, True, True)
    told = [event.message for event in world.events if event.kind is EventKind.WARNING]
    assert [words.startswith("Stage benchmark of") and "is left out, and the run goes on" in words for words in told] == [
        True,
        True,
    ]


def test_a_stage_of_the_chain_that_fails_takes_the_benchmark_with_it() -> None:
    story = benchmarked()
    story.end = End(64)
    story.go_on(lambda: story.status.phase.finished)
    assert story.status.phase is Phase.FAILED
    stopped = story.stage(None, StageName.BENCHMARK)
    assert (stopped.phase, stopped.message) == (Phase.CANCELLED, "Stopped with the run.")
    assert story.world.jobs[BENCHMARK].job.deleting


def test_suspending_stops_both_and_both_go_on() -> None:
    story = benchmarked()
    story.world.change_spec(suspend=True)
    decision = story.decide()
    assert created(decision) == [DeleteJob, DeleteJob]
    story.go_on(lambda: not story.world.jobs.get(BENCHMARK))
    assert story.stage(None, StageName.BENCHMARK).phase is Phase.SUSPENDED
    story.world.change_spec(suspend=False)
    assert story.to_the_end().phase is Phase.SUCCEEDED
    attempts = [
        (job.attempt, job.resolving) for job in story.world.created if (job.iteration, job.stage) == (None, StageName.BENCHMARK)
    ]
    assert attempts == [(1, False), (2, True), (3, False)]
    assert story.stage(None, StageName.BENCHMARK).infrastructure_retries == 0


def test_cancel_stops_both() -> None:
    story = benchmarked()
    story.world.change_spec(cancel=True)
    assert created(story.decide()) == [DeleteJob, DeleteJob]


def test_while_a_gate_waits_for_a_person_benchmarks_go_on_and_begin() -> None:
    gates = [{"name": "look", "metric": "winRateVsInitial", "max": 0.55, "action": "Pause"}]
    story = benchmarked(gates=gates)
    story.go_on(lambda: story.status.phase is Phase.PAUSED and story.stage(1, StageName.BENCHMARK).phase is Phase.RUNNING)
    assert story.stage(None, StageName.BENCHMARK).phase is Phase.RUNNING
    assert "{gate: look, iteration: 1}. Stage benchmark of pi_0 is running." in story.status.message
    assert DeleteJob not in created(story.decide())


def test_a_benchmark_that_cannot_start_is_given_up_and_its_job_goes() -> None:
    story = Story(evaluate=BENCHMARKED, iterations=1, pendingDeadlineSeconds=600)
    story.go_on(lambda: BENCHMARK in story.world.jobs and SAMPLE in story.world.jobs)
    simulated = story.world.jobs[BENCHMARK]
    simulated.job = replace(simulated.job, hindrance=Hindrance(Reason.UNSCHEDULABLE, "0/3 nodes have a GPU free."))
    decision = story.decide()
    assert "Stage benchmark of pi_0 waits: 0/3 nodes have a GPU free." in decision.status.message
    waiting = replace(story.world.jobs[SAMPLE].job, phase=JobPhase.SUSPENDED, pods=())
    story.world.jobs[SAMPLE].job = waiting
    story.world.clock.advance(600)
    decision = story.decide()
    assert decision.status.phase is Phase.RUNNING
    [given_up] = [stage for stage in decision.status.stages if stage.name is StageName.BENCHMARK]
    assert (given_up.phase, given_up.reason) == (Phase.FAILED, Reason.PENDING_DEADLINE_EXCEEDED)
    assert created(decision) == [DeleteJob]


def test_a_benchmark_that_is_refused_for_the_manifests_sake_is_left_out_for_good() -> None:
    story = Story(evaluate=BENCHMARKED, iterations=1)
    story.until_running(1, StageName.SAMPLE)
    words = f'Job.batch "{BENCHMARK}" is invalid.'
    story.world.jobs.pop(BENCHMARK, None)
    stages = [stage for stage in story.status.stages if stage.name is not StageName.BENCHMARK]
    pending = StageStatus(name=StageName.BENCHMARK, phase=Phase.PENDING, attempt=1, beside=True)
    story.world.run = story.run.model_copy(update={"status": story.status.model_copy(update={"stages": [*stages, pending]})})
    refusals = (Refusal(BENCHMARK, Reason.CONFIGURATION_ERROR, words),)
    status = story.decide(refusals=refusals).status
    assert (status.phase, status.stages[-1].phase, status.stages[-1].message) == (Phase.RUNNING, Phase.FAILED, words)
    story.world.run = story.run.model_copy(update={"status": status})
    assert story.decide(refusals=refusals).status.phase is Phase.RUNNING, "the backend goes on telling of it"


def test_a_refused_benchmark_is_told_and_no_word_of_it_is_the_chains() -> None:
    story = Story(evaluate=BENCHMARKED, iterations=1)
    story.go_on(lambda: story.stage(1, StageName.SAMPLE).phase is Phase.PENDING and story.stage(1, StageName.SAMPLE).attempt == 1)
    refusal = Refusal(BENCHMARK, Reason.QUOTA_EXCEEDED, "exceeded quota: pods.")
    story.world.jobs.clear()
    decision = story.decide(refusals=(refusal,))
    assert decision.status.message.endswith("Stage benchmark of pi_0 cannot start yet: exceeded quota: pods.")
    assert "Stage sample of iteration 1 of 1 is starting." in decision.status.message
    assert story.condition(ConditionType.PROGRESSING) is not None


def test_what_lingers_of_a_benchmark_does_not_hold_the_chain_up() -> None:
    story = benchmarked()
    story.world.jobs[BENCHMARK].job = replace(story.world.jobs[BENCHMARK].job, phase=JobPhase.FAILED, deleting=True)
    story.go_on(lambda: story.stage(1, StageName.SAMPLE).phase is Phase.SUCCEEDED)


def test_the_active_deadline_counts_what_works_beside_the_chain() -> None:
    story = benchmarked(activeDeadlineSeconds=1000)
    story.go_on(lambda: story.stage(1, StageName.SAMPLE).phase is Phase.RUNNING)
    worked = story.status.totals.work_seconds
    story.world.clock.advance((1000 - worked) / 2)
    assert story.decide().status.phase is Phase.FAILED
    assert "activeDeadlineSeconds" in story.decide().status.message


def test_a_benchmark_of_an_evaluation_that_was_found_is_looked_up_first() -> None:
    first = Story(evaluate=BENCHMARKED, iterations=1)
    first.to_the_end()
    second = World(run_of(spec_of(evaluate=BENCHMARKED, iterations=1), uid="another"), sealed=dict(first.world.sealed))
    for _ in range(200):
        reconcile(second, second.clock)
        second.step()
    assert second.run.status is not None
    assert second.run.status.phase is Phase.SUCCEEDED
    assert {job.resolving for job in second.created if job.stage is StageName.BENCHMARK} == {True}


def test_a_benchmark_that_the_manifest_no_longer_asks_for_is_cancelled_and_not_stumbled_over() -> None:
    """Another version may have begun it."""
    story = benchmarked()
    plain = story.run.model_copy(update={"spec": spec_of(iterations=1)})
    seen = story.world.observe(live=True)
    assert seen is not None
    decision = decide(plain, seen.observed, story.world.clock.now())
    [cancelled] = [stage for stage in decision.status.stages if stage.name is StageName.BENCHMARK]
    assert cancelled.phase is Phase.CANCELLED
    assert DeleteJob in created(decision)


def test_a_benchmark_that_waits_for_its_next_attempt_holds_nothing_up() -> None:
    retry = {"application": 2, "infrastructure": 3, "backoffSeconds": 3600}
    world = World(run_of(spec_of(evaluate=BENCHMARKED, iterations=1, retry=retry)), fate=ends(StageName.BENCHMARK, End(1)))
    started: set[StageName] = set()
    for _ in range(40):
        reconcile(world, world.clock)
        status = world.run.status
        assert status is not None
        if any(stage.beside and stage.retry_at is not None and stage.retry_at > world.clock.now() for stage in status.stages):
            started.update(job.stage for job in world.present())
        world.step()
    assert StageName.TRAIN in started


def gated(*gates: dict[str, Any], **changes: Any) -> Story:
    return Story(**{"evaluate": BENCHMARKED, "iterations": 2, "gates": list(gates)} | changes)


@pytest.mark.parametrize("action", ["Warn", "Stop", "Pause", "Rollback"])
def test_a_gate_waits_for_the_benchmark_that_it_reads_and_acts_as_others_do(action: str) -> None:
    """The run's iterates have 0.6, 0.5 and 0.4: the first keeps the bound, the second does not."""
    story = gated({**AT_LEAST, "min": 0.45, "action": action})
    story.until_running(1, StageName.BENCHMARK)
    assert story.stage(1, StageName.EVALUATE).phase is Phase.SUCCEEDED
    assert (story.status.stage, bool(story.stage(1, StageName.BENCHMARK).beside)) == (StageName.BENCHMARK, False)
    assert story.status.iterations[0].gates == [], "no verdict before it is over"
    if action == "Pause":
        story.hang_at = None
        story.go_on(lambda: story.status.phase is Phase.PAUSED)
        story.world.change_spec(approvals=[Approval(gate="arc", iteration=2)])
    status = story.to_the_end()
    assert status.phase is Phase.SUCCEEDED
    verdicts = [[gate.verdict for gate in entry.gates] for entry in status.iterations]
    last = GateVerdict.APPROVED if action == "Pause" else GateVerdict.TRIPPED
    assert verdicts == [[GateVerdict.PASSED], [last]]
    assert [entry.discarded for entry in status.iterations] == [False, action == "Rollback"]
    assert status.message.startswith("Gate arc stopped the run after iteration 2: acc of arc_easy 0.4") is (action == "Stop")
    assert status.iterations[1].gates[0].message.startswith("acc of arc_easy 0.4 [0.38, 0.42] of iteration 2 is below min 0.45.")


def test_what_is_compared_with_pi_0_waits_for_its_benchmark_and_a_bound_does_not() -> None:
    compared = gated(AT_MOST_LOST)
    compared.until_running(None, StageName.BENCHMARK)
    assert not compared.stage(None, StageName.BENCHMARK).beside
    assert SAMPLE not in compared.world.jobs
    bounded = gated(AT_LEAST)
    bounded.until_running(None, StageName.BENCHMARK)
    assert bounded.stage(None, StageName.BENCHMARK).beside
    bounded.go_on(lambda: SAMPLE in bounded.world.jobs)


@pytest.mark.parametrize("end", [End(64), End(1)])
def test_a_benchmark_that_a_gate_reads_fails_the_run(end: End) -> None:
    retry = {"application": 2, "infrastructure": 3, "backoffSeconds": 10}
    spec = spec_of(evaluate=BENCHMARKED, iterations=1, retry=retry, gates=[AT_MOST_LOST])
    world = World(run_of(spec), fate=ends(StageName.BENCHMARK, end))
    for _ in range(100):
        reconcile(world, world.clock)
        world.step()
    status = world.run.status
    assert status is not None
    assert (status.phase, status.stage) == (Phase.FAILED, StageName.BENCHMARK)


def test_a_mark_that_was_cut_off_comes_back_only_where_the_benchmark_is_beside_the_chain() -> None:
    story = gated(AT_LEAST)
    story.go_on(lambda: story.stage(1, StageName.BENCHMARK).phase is Phase.RUNNING)
    wire = story.run.to_wire()
    for stage in [*wire["status"]["stages"], *wire["status"]["iterations"][0]["stages"]]:
        stage.pop("beside", None)
    story.world.run = type(story.run).model_validate(wire)
    decided = story.decide().status
    marks = {iteration: bool(stage.beside) for iteration, stage in stages_of(decided) if stage.name is StageName.BENCHMARK}
    assert marks == {None: True, 1: False}
