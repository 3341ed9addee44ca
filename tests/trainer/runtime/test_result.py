"""The one result of a stage: valid JSON within what the operator reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf_api.metrics import Metric
from rlhf_api.stage import StageResult
from rlhf_api.words import StageName
from rlhf_trainer.runtime.errors import ApplicationProblem
from rlhf_trainer.runtime.result import RESULT_LIMIT, write_result

LONG = "Was nicht geht, steht hier, auch mit “Anführung” und 漢字. " * 200


def result_of(**fields: Any) -> StageResult:
    return StageResult.model_validate({"stage": "evaluate", **fields})


@pytest.mark.parametrize(
    "result",
    [
        result_of(problem=LONG, reason="ApplicationError"),
        result_of(problem="漢" * 5000, reason="ApplicationError"),
        result_of(warnings=[LONG] * 20, counts={f"count{i}": i for i in range(400)}),
        result_of(
            warnings=[LONG], problem=LONG, metrics={m.value: {"value": 0.123456, "lower": 0.1, "upper": 0.2} for m in Metric}
        ),
    ],
)
def test_a_result_is_valid_json_within_4096_bytes_whatever_is_in_it(tmp_path: Path, result: StageResult) -> None:
    write_result(result, tmp_path / "result.json")
    data = (tmp_path / "result.json").read_bytes()
    assert len(data) <= RESULT_LIMIT
    read = StageResult.model_validate_json(data)
    assert read.metrics == result.metrics
    assert (read.reason, bool(read.problem)) == (result.reason, bool(result.problem))


def test_a_small_result_is_written_whole(tmp_path: Path) -> None:
    result = result_of(counts={"validation": 3}, warnings=["look"], metrics={"judgeMean": {"value": 1.0}})
    write_result(result, tmp_path / "deep" / "result.json")
    assert StageResult.model_validate_json((tmp_path / "deep" / "result.json").read_bytes()) == result


def test_revisions_of_fifty_iterations_fit(tmp_path: Path) -> None:
    resolved = {f"prompts.source/{number}": "0123456789" * 4 for number in range(1, 51)} | {"policy.model": "a" * 40}
    write_result(StageResult(stage=StageName.PREFLIGHT, resolved=resolved, warnings=[LONG]), tmp_path / "result.json")
    assert StageResult.model_validate_json((tmp_path / "result.json").read_bytes()).resolved == resolved


def test_a_result_that_cannot_be_cut_says_so_instead_of_half_of_it(tmp_path: Path) -> None:
    resolved = {f"sft.data/source-{number}": "0123456789" * 4 for number in range(100)}
    with pytest.raises(ApplicationProblem, match="4096"):
        write_result(StageResult(stage=StageName.PREFLIGHT, resolved=resolved), tmp_path / "result.json")
    assert not (tmp_path / "result.json").exists()
