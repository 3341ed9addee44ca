"""What an attempt has cost is booked once."""

from __future__ import annotations

import pytest

from rlhf_api.words import StageName
from rlhf_operator.core.cursor import stages_of
from support.story import Story
from support.tape import DONE, End


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
