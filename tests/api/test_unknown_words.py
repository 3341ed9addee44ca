"""What another version wrote is told by its place and its word."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rlhf_api import RLHFRun, StageResult
from rlhf_api.reading.unknown import in_words, mismatches, mismatches_of
from rlhf_api.stage import PromptIdentity
from rlhf_api.words import STATUS_FORMAT
from rlhf_operator.core.chain.references import PROMPT_IDENTITY, format_of
from support.manifests import manifest

STAGE = {"name": "preflight", "phase": "Running", "attempt": 1}


def found(**parts: Any) -> list[tuple[str, bool]]:
    with pytest.raises(ValidationError) as caught:
        RLHFRun.model_validate({**manifest(), **parts})
    return [(str(entry), entry.word) for entry in mismatches(caught.value)]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"phase": "Preparing"}, "status.phase is 'Preparing'"),
        ({"stage": "prepare"}, "status.stage is 'prepare'"),
        ({"stages": [STAGE, STAGE | {"name": "prepare"}]}, "status.stages[1].name is 'prepare'"),
        ({"stages": [STAGE | {"warmth": 3}]}, "status.stages[0] has a field 'warmth'"),
        ({"iterations": [{"number": 1, "metrics": {"charm": {"value": 1}}}]}, "status.iterations[0].metrics has a key 'charm'"),
        ({"preparation": {}}, "status has a field 'preparation'"),
        ({"format": STATUS_FORMAT + 1}, f"status.format is {STATUS_FORMAT + 1}"),
    ],
)
def test_a_word_of_the_status_is_told_with_its_place(status: dict[str, Any], told: str) -> None:
    assert found(status=status) == [(told, True)]


def test_a_word_of_the_spec_is_told_with_its_place() -> None:
    spec = manifest()["spec"]
    assert found(spec={**spec, "policy": {**spec["policy"], "dtype": "float8"}}) == [("spec.policy.dtype is 'float8'", True)]
    assert found(apiVersion="rlhf.dev/v2") == [("apiVersion is 'rlhf.dev/v2'", True)]


def test_a_value_that_is_none_is_no_word_and_comes_after_words() -> None:
    spec = manifest()["spec"]
    first, second = found(spec={**spec, "iterations": "three"}, status={"phase": "Preparing"})
    assert first == ("status.phase is 'Preparing'", True)
    assert second[0].startswith("spec.iterations is no value of it (")
    assert not second[1]


def test_a_format_up_to_our_own_is_read() -> None:
    run = RLHFRun.model_validate({**manifest(), "status": {"format": STATUS_FORMAT}})
    assert run.status is not None
    assert run.status.format == STATUS_FORMAT


def test_a_version_that_knows_no_prompts_with_tools_leaves_a_run_with_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that version reads it: the field is there and the words of its identity are not."""
    written = format_of({PROMPT_IDENTITY: PromptIdentity.RENDERED_WITH_TOOLS})
    monkeypatch.setattr("rlhf_api.resource.status.STATUS_FORMAT", 1)
    assert found(status={"format": written}) == [("status.format is 2", True)]


def test_a_result_with_a_new_word_is_another_version_s_and_garbage_is_nobody_s() -> None:
    newer = '{"stage": "train", "warmth": 3, "metrics": {"charm": {"value": 1}}}'
    assert [str(entry) for entry in mismatches_of(StageResult, newer, "the result of pod p")] == [
        "metrics of the result of pod p has a key 'charm'",
        "the result of pod p has a field 'warmth'",
    ]
    for text in ("{", "[]", '{"warmth": 3}', '{"stage": "train"}'):
        assert mismatches_of(StageResult, text, "") == ()


def test_the_sentence_names_the_first_and_counts_the_others() -> None:
    with pytest.raises(ValidationError) as caught:
        RLHFRun.model_validate({**manifest(), "status": {"phase": "Preparing", "stage": "prepare"}})
    sentence = in_words(mismatches(caught.value))
    assert sentence.startswith("status.phase is 'Preparing' (and 1 more), which this version (")
    assert sentence.endswith(") does not know")
