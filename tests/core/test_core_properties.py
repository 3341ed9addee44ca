"""Whatever goes wrong, and whenever: a run ends in the same state, and nothing is computed twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_api.words import Phase, Reason, StageName
from rlhf_operator.core.actions import CreateJob
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.core.observed import Pod, PodState
from rlhf_operator.reconcile import reconcile
from support.driving import BEGIN, SPEC, TAPE, drive, essence
from support.runs import ASKED, AT_LEAST, AT_MOST_LOST, BENCHMARKED, run_of, spec_of
from support.simulation import World
from support.tape import DONE, VANISHING, End, Tape

#: Without stages beside the chain; with them; with gates that read them: of pi_0 beside the chain, or in it as the others; with
#: people, who are asked and answer.
SPECS = (
    SPEC,
    SPEC | {"evaluate": BENCHMARKED},
    SPEC | {"evaluate": BENCHMARKED, "gates": [AT_LEAST]},
    SPEC | {"evaluate": BENCHMARKED, "gates": [*SPEC["gates"], AT_MOST_LOST]},
    SPEC | ASKED | {"evaluate": BENCHMARKED},
)
UNDISTURBED = [essence(drive(World(run_of(spec_of(**spec))))) for spec in SPECS]
BESIDE = st.sampled_from(range(len(SPECS)))


@settings(max_examples=120)
@given(TAPE, BEGIN, BESIDE)
def test_a_run_ends_in_the_same_state_whatever_goes_wrong(numbers: list[int], begin: int, beside: int) -> None:
    world = World(run_of(spec_of(**SPECS[beside])))
    assert essence(drive(world, numbers, begin)) == UNDISTURBED[beside]
    assert set(world.sealed.values()) == {1}


@settings(max_examples=120)
@given(TAPE, BEGIN, BESIDE)
def test_so_it_does_where_a_sidecar_goes_on_in_every_pod(numbers: list[int], begin: int, beside: int) -> None:
    """It holds the pod's GPUs, and the Job does not know that the stage ended. Sometimes it ends by itself, sometimes badly."""
    world = World(run_of(spec_of(**SPECS[beside])), sidecar="istio-proxy")
    assert essence(drive(world, numbers, begin)) == UNDISTURBED[beside]
    assert set(world.sealed.values()) == {1}
    world.tape.numbers.clear()
    reconcile(world, world.clock)
    assert world.run.status is not None
    assert [stage.held for _, stage in stages_of(world.run.status) if stage.held] == []


@settings(max_examples=60)
@given(TAPE, BEGIN, st.lists(st.integers(0, 30), max_size=6), BESIDE)
def test_suspending_and_resuming_at_any_moment_changes_nothing(
    numbers: list[int], begin: int, moments: list[int], beside: int
) -> None:
    world = World(run_of(spec_of(**SPECS[beside])))

    def toggle(number: int) -> None:
        if moments.count(number - begin) % 2:
            world.change_spec(suspend=not world.run.spec.suspend)
        if number > begin + 30 and world.run.spec.suspend:
            world.change_spec(suspend=False)

    assert essence(drive(world, numbers, begin, toggle)) == UNDISTURBED[beside]


def test_a_stage_that_seals_while_it_is_told_to_stop_is_looked_up_and_not_computed_again() -> None:
    """The rarest case of the property above: between SIGTERM and its end, a suspended attempt gets done, and nobody hears of it."""
    world = World(run_of(spec_of(**SPEC)))
    while not any(job.stage is StageName.SFT and job.pods[0].state is PodState.RUNNING for job in world.present()):
        reconcile(world, world.clock)
        world.step()
    world.change_spec(suspend=True)
    reconcile(world, world.clock)
    world.tape.numbers = [VANISHING.index("seal")]
    world.step()
    assert len(world.sealed) == 1
    world.change_spec(suspend=False)
    assert essence(drive(world)) == UNDISTURBED[0]
    sft = [(action.name, action.resolving) for action in world.created if action.stage is StageName.SFT]
    assert sft == [("tiny-i0-sft-1", False), ("tiny-i0-sft-2", True)]


@settings(max_examples=100)
@given(TAPE, BEGIN, st.integers(0, 2), st.sampled_from([None, "istio-proxy"]), BESIDE)
def test_a_run_with_small_budgets_ends_and_computes_nothing_twice(
    numbers: list[int], begin: int, application: int, sidecar: str | None, beside: int
) -> None:
    retry = {"application": application, "infrastructure": 3, "backoffSeconds": 10}
    run = drive(World(run_of(spec_of(**SPECS[beside] | {"retry": retry})), sidecar=sidecar), numbers, begin)
    assert run.status is not None
    assert run.status.phase in (Phase.SUCCEEDED, Phase.FAILED)


@settings(max_examples=40)
@given(TAPE, st.integers(0, 13))
def test_a_configuration_error_fails_the_run_and_nothing_runs_after_it(numbers: list[int], at: int) -> None:
    started: list[str] = []

    def fate(action: CreateJob, pod: Pod, tape: Tape) -> End:
        if action.name not in started:
            started.append(action.name)
        return End(64) if len(started) > at else DONE

    world = World(run_of(spec_of(**SPEC)), Tape(list(numbers)), fate=fate)
    run = drive(world)
    assert run.status is not None
    assert run.status.phase is Phase.FAILED
    assert [condition.reason for condition in run.status.conditions if condition.type == "Failed"] == [Reason.CONFIGURATION_ERROR]
    jobs = len(world.created)
    for _ in range(5):
        world.tape.numbers.clear()
        reconcile(world, world.clock)
        world.step()
    assert len(world.created) == jobs


@settings(max_examples=30)
@given(TAPE, BEGIN, BESIDE)
def test_a_cancelled_run_stops_and_stays_cancelled(numbers: list[int], begin: int, beside: int) -> None:
    world = World(run_of(spec_of(**SPECS[beside])))

    def cancel(number: int) -> None:
        if number == begin + 5:
            world.change_spec(cancel=True)

    run = drive(world, numbers, begin, cancel)
    assert run.status is not None
    assert run.status.phase in (Phase.CANCELLED, Phase.SUCCEEDED)


@settings(max_examples=40)
@given(TAPE, TAPE, BEGIN, BESIDE)
def test_a_run_that_was_deleted_and_applied_again_adopts_what_exists(
    numbers: list[int], again: list[int], begin: int, beside: int
) -> None:
    world = World(run_of(spec_of(**SPECS[beside])))
    drive(world, numbers, begin=0)
    second = World(run_of(spec_of(**SPECS[beside]), uid="another"), sealed=dict(world.sealed))
    assert essence(drive(second, again, begin)) == UNDISTURBED[beside]
    assert second.sealed == world.sealed
