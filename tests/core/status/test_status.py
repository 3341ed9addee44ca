"""What is booked, and what the status says of it."""

from __future__ import annotations

import pytest

from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import ConditionType, StageName
from rlhf_operator.core.cursor import stages_of
from support.simulation import DONE, End
from support.story import Story


def test_times_and_gpu_seconds_are_booked_once() -> None:
    story = Story(iterations=1)
    story.until_running(1, StageName.TRAIN)
    story.world.clock.advance(1000)
    story.end = End(137, speaks=False)
    story.hang_at = None
    story.go_on(lambda: story.stage(1, StageName.TRAIN).attempt == 2)
    lost = story.stage(1, StageName.TRAIN).lost_gpu_seconds
    assert lost >= 1000
    story.end = DONE
    status = story.to_the_end()
    train = story.stage(1, StageName.TRAIN)
    assert train.lost_gpu_seconds == lost
    assert train.gpu_seconds > lost
    assert status.totals.gpu_seconds == pytest.approx(sum(stage.gpu_seconds for _, stage in stages_of(status)))
    assert status.totals.lost_gpu_seconds == pytest.approx(lost)


def test_the_status_names_the_best_iterate_and_its_checkpoint_as_they_come() -> None:
    story = Story(iterations=2)
    story.until_running(1, StageName.SAMPLE)
    assert (story.status.best_iteration, story.status.win_rate) == (0, 0.5)
    story.until_running(2, StageName.SAMPLE)
    assert (story.status.best_iteration, story.status.win_rate) == (1, 0.6)
    assert story.status.checkpoint is not None
    train = story.stage(1, StageName.TRAIN).artifact
    assert train is not None
    assert story.status.checkpoint.url == train.url
    assert story.status.checkpoint.url.startswith("s3://bucket/tiny/policy/")


def test_a_condition_keeps_its_time_while_it_stays_the_same() -> None:
    story = Story(iterations=1)
    story.until_running(None, StageName.PREFLIGHT)
    first = {item.type: item.last_transition_time for item in story.status.conditions}
    story.until_running(1, StageName.TRAIN)
    later = {item.type: item.last_transition_time for item in story.status.conditions}
    assert later[ConditionType.PROGRESSING] == first[ConditionType.PROGRESSING]


def test_an_iteration_takes_so_little_of_the_status_that_fifty_fit_into_an_object() -> None:
    def size(iterations: int) -> int:
        status = Story(iterations=iterations).to_the_end()
        RLHFRunStatus.model_validate(status.to_wire())
        return len(status.model_dump_json(by_alias=True, exclude_none=True))

    # The API server takes objects of 1.5 MB; an iteration may hold 24 metrics, of which these runs report 2.
    assert size(6) - size(5) < 6_000
