"""What is booked, and what the status says of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from rlhf_api.resource.status import ArtifactStatus, CheckpointStatus, ConditionStatus, RLHFRunStatus, StageStatus
from rlhf_api.words import ConditionType, Phase, Reason, StageName
from rlhf_operator.core.chain.history import history_of
from rlhf_operator.core.status.conditions import Standing, with_standing
from rlhf_operator.core.status.sentences import clip
from rlhf_operator.core.status.status import _checkpoint
from support.story import Story


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


def test_the_checkpoint_is_where_the_files_of_the_best_iterate_lie() -> None:
    digest, fingerprint = "a" * 64, "b" * 64
    artifact = ArtifactStatus(url=f"file:///store/policy/{fingerprint}", digest=digest, fingerprint=fingerprint, folder="c0ffee")
    done = StageStatus(name=StageName.SFT, phase=Phase.SUCCEEDED, artifact=artifact)
    status = RLHFRunStatus(stages=[done])
    found = _checkpoint(status, history_of(status), 0)
    assert found == CheckpointStatus(url=f"file:///store/policy/{fingerprint}/c0ffee", digest=digest)


@pytest.mark.parametrize(
    ("reason", "ready"),
    [(Reason.CONFIGURATION_ERROR, ConditionStatus.FALSE), (Reason.RETRY_BUDGET_EXHAUSTED, ConditionStatus.TRUE)],
)
def test_a_manifest_that_cannot_be_run_was_not_accepted(reason: Reason, ready: ConditionStatus) -> None:
    status = with_standing(RLHFRunStatus(), Standing(Phase.FAILED, reason, "Why."), 1, datetime(2026, 1, 1, tzinfo=UTC))
    assert {condition.type: condition.status for condition in status.conditions}[ConditionType.READY] is ready


def test_what_steers_a_terminal_comes_into_no_status() -> None:
    """A termination message is written by whatever image a manifest names."""
    said = clip("\x1b]0;title\x07\x1b[2Jall is well\r\n\tso it seems\x9b")
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said) == []
    assert "all is well" in said
    assert "\n\tso it seems" in said
