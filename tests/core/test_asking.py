"""A run that asks people: it waits for them in every iteration, is told, and goes on, whatever goes wrong meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from rlhf_api.resource.labeler import Annotations
from rlhf_api.resource.status import ConditionStatus
from rlhf_api.stage import AskWork, LabelWork
from rlhf_api.words import STAGE_ARTIFACT, ArtifactKind, ConditionType, Phase, Reason, StageName
from rlhf_operator.core.jobs.execution import CPU_STAGES
from rlhf_operator.core.plan.planner import AwaitPerson, Finish, Planner
from support.driving import BEGIN, SPEC, TAPE, answers, drive, essence, person
from support.runs import ASKED, BENCHMARKED, RUN, artifact_of, digest_of, improving, run_of, spec_of, walk
from support.simulation import World
from support.story import Story

ASKING = SPEC | ASKED
UNDISTURBED = essence(drive(World(run_of(spec_of(**ASKING)))))


def test_an_iteration_asks_and_waits_for_the_answers_to_its_own_questions() -> None:
    configs, end = walk(Planner(RUN, spec_of(**ASKED, annotations=answers(1))))
    assert [f"{config.stage}{config.iteration or ''}" for config in configs][2:] == [
        "sample1", "ask1", "label1", "reference1", "train1", "evaluate1", "sample2", "ask2",
    ]  # fmt: skip
    assert isinstance(end, AwaitPerson)
    assert end.reason is Reason.AWAITING_ANNOTATIONS
    assert "Iteration 2 waits for people's answers" in end.message
    _, end = walk(Planner(RUN, spec_of(**ASKED, annotations=answers(1, 2))))
    assert isinstance(end, Finish)


def test_label_is_told_what_was_asked_and_what_was_answered() -> None:
    configs, _ = walk(Planner(RUN, spec_of(**ASKED, annotations=answers(2, 1))))
    sample, ask, label = (config for config in configs if config.iteration == 2 and config.stage in ("sample", "ask", "label"))
    assert isinstance(ask.work, AskWork)
    assert isinstance(label.work, LabelWork)
    assert ask.work.samples == label.work.samples == artifact_of(sample)
    assert label.work.questions == artifact_of(ask)
    assert label.work.annotations == digest_of("answers 2")


@pytest.mark.parametrize("field", [{"instructions": "Be strict."}, {"minAnswered": 0.5}])
def test_what_changes_neither_questions_nor_labels_is_in_no_fingerprint(field: dict[str, Any]) -> None:
    told = {"reward": {"type": "Human", "human": field}}
    one, other = (walk(Planner(RUN, spec_of(**each, annotations=answers(1, 2))))[0] for each in (ASKED, told))
    chain = [[config.fingerprint for config in configs if config.stage is not StageName.PREFLIGHT] for configs in (one, other)]
    assert chain[0] == chain[1]


def test_who_asks_nobody_has_no_such_stage_and_labels_as_before() -> None:
    configs, _ = walk(Planner(RUN, spec_of()))
    assert StageName.ASK not in {config.stage for config in configs}
    labels = [config.work for config in configs if isinstance(config.work, LabelWork)]
    assert {"questions", "annotations"} & labels[0].model_dump(exclude_none=True).keys() == set()


def test_asking_needs_no_gpu() -> None:
    assert StageName.ASK in CPU_STAGES


def test_a_run_that_waits_says_for_what_and_goes_on_when_it_is_told() -> None:
    story = Story(**ASKED, iterations=1)
    story.go_on(lambda: story.status.phase is Phase.PAUSED)
    assert story.condition(ConditionType.PROGRESSING) == (ConditionStatus.FALSE, Reason.AWAITING_ANNOTATIONS)
    assert story.stage(1, StageName.ASK).phase is Phase.SUCCEEDED
    person(story.world)
    assert story.to_the_end().phase is Phase.SUCCEEDED


def test_questions_are_let_go_with_the_samples_that_they_are_made_of() -> None:
    storage = {"storage": {"url": "s3://bucket/tiny", "retention": {"samples": "KeepBest"}}}
    configs, _ = walk(Planner(RUN, spec_of(**ASKED, **storage, annotations=answers(1, 2))), improving)
    removed = getattr(configs[-1].work, "removed")  # noqa: B009 - of finalize
    asked = [artifact_of(config) for config in configs if config.stage is StageName.ASK]
    assert [ref for ref in removed if ref.kind is ArtifactKind.QUESTIONS] == asked[:1]


@settings(max_examples=80)
@given(TAPE, BEGIN)
def test_a_run_that_asks_ends_in_the_same_state_whatever_goes_wrong(numbers: list[int], begin: int) -> None:
    world = World(run_of(spec_of(**ASKING)))
    assert essence(drive(world, numbers, begin)) == UNDISTURBED
    assert set(world.sealed.values()) == {1}
    assert [entry.iteration for entry in world.run.spec.annotations] == [1, 2], "it waits in each iteration"


def waiting(**changes: Any) -> Story:
    story = Story(**ASKED, iterations=1, **changes)
    return story.go_on(lambda: story.status.phase is Phase.PAUSED)


def test_waiting_for_people_is_no_work_and_no_deadline_ends_it() -> None:
    """They take weeks, and hold nothing."""
    story = waiting(activeDeadlineSeconds=100_000, pendingDeadlineSeconds=60)
    worked = story.status.totals.work_seconds
    story.world.clock.advance(10_000_000)
    decision = story.decide()
    assert decision.status.phase is Phase.PAUSED
    assert decision.status.totals.work_seconds == worked
    assert decision.requeue_after is None, "nothing but a person changes it"
    person(story.world)
    assert story.to_the_end().phase is Phase.SUCCEEDED


def test_an_active_deadline_that_the_work_has_used_up_ends_it_when_it_goes_on() -> None:
    story = waiting(activeDeadlineSeconds=100_000)
    person(story.world)
    story.until_running(1, StageName.LABEL)
    story.world.clock.advance(100_000)
    assert story.to_the_end().phase is Phase.FAILED
    assert story.condition(ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.DEADLINE_EXCEEDED)


def test_a_run_that_waits_is_suspended_and_answers_that_come_then_count_when_it_is_resumed() -> None:
    story = waiting()
    story.world.change_spec(suspend=True)
    story.go_on(lambda: story.status.phase is Phase.SUSPENDED)
    story.world.change_spec(annotations=[*map(Annotations.model_validate, answers(1))])
    assert story.decide().status.phase is Phase.SUSPENDED
    story.world.change_spec(suspend=False)
    assert story.to_the_end().phase is Phase.SUCCEEDED
    assert story.stage(1, StageName.ASK).attempt == 1


def test_a_run_that_was_suspended_while_it_waited_waits_again() -> None:
    story = waiting()
    story.world.change_spec(suspend=True)
    story.go_on(lambda: story.status.phase is Phase.SUSPENDED)
    story.world.change_spec(suspend=False)
    story.go_on(lambda: story.status.phase is Phase.PAUSED)
    assert story.condition(ConditionType.PROGRESSING) == (ConditionStatus.FALSE, Reason.AWAITING_ANNOTATIONS)


def test_a_run_that_waits_is_cancelled_at_once() -> None:
    story = waiting()
    story.world.change_spec(cancel=True)
    assert story.to_the_end().phase is Phase.CANCELLED


def test_what_is_beside_the_chain_goes_on_while_people_are_asked() -> None:
    story = Story(**ASKED, iterations=1, evaluate=BENCHMARKED)
    story.hang_at = (None, StageName.BENCHMARK)
    story.go_on(lambda: story.status.phase is Phase.PAUSED)
    assert story.stage(None, StageName.BENCHMARK).phase in (Phase.PENDING, Phase.RUNNING)
    story.hang_at = None
    story.go_on(lambda: story.stage(None, StageName.BENCHMARK).phase is Phase.SUCCEEDED)
    assert story.status.phase is Phase.PAUSED


def test_answers_that_were_given_ahead_are_not_waited_for() -> None:
    """They are to the same questions only if the run is the same; label refuses others."""
    story = Story(**ASKED, iterations=2, annotations=answers(1, 2))
    phases = set()

    def seen() -> bool:
        phases.add(story.status.phase)
        return story.status.phase.finished

    story.go_on(seen)
    assert Phase.PAUSED not in phases


def test_a_run_that_is_begun_again_and_gets_the_same_answers_computes_nothing_again() -> None:
    """preflight walks the chain as far as the answers that there are: none, at the beginning."""
    first = World(run_of(spec_of(**ASKING)))
    drive(first)
    second = World(run_of(spec_of(**ASKING), uid="another"), sealed=dict(first.sealed))
    assert essence(drive(second)) == UNDISTURBED
    assert second.sealed == first.sealed
    assert [job.name for job in second.created if not job.resolving and job.stage in STAGE_ARTIFACT] == []


def test_a_run_that_is_begun_again_and_gets_other_answers_computes_what_comes_of_them() -> None:
    first = World(run_of(spec_of(**ASKING)))
    drive(first)
    other = Annotations(iteration=1, digest="0" * 64)
    second = World(run_of(spec_of(**ASKING, annotations=[other.to_wire()]), uid="another"), sealed=dict(first.sealed))
    run = drive(second)
    assert run.status is not None
    assert run.status.phase is Phase.SUCCEEDED
    computed = [job.stage for job in second.created if not job.resolving and job.iteration == 1]
    assert computed == [StageName.LABEL, StageName.REFERENCE, StageName.TRAIN, StageName.EVALUATE]
