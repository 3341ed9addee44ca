"""Labels to training examples: the one place where pairs are cut to length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.resource.training import Overlong
from rlhf_trainer.data.examples import Example
from rlhf_trainer.data.parquet import LABELS
from rlhf_trainer.data.preferences import Limits, Pairs, fit

EOS = 2
ids = st.lists(st.integers(3, 50), min_size=1, max_size=12)


def limits(length: int, prompt: int, overlong: Overlong = Overlong.TRUNCATE) -> Limits:
    return Limits(length, prompt, overlong)


def test_a_pair_within_the_limits_is_as_it_was_sampled() -> None:
    assert fit([5, 6], [7, EOS], [8, 9, EOS], limits(5, 2)) == Example([5, 6], [[7, EOS], [8, 9, EOS]])


@given(ids, ids, ids, st.integers(1, 30))
def test_defect_cut_text_never_gets_an_eos(prompt: list[int], chosen: list[int], rejected: list[int], length: int) -> None:
    fitted = fit(prompt, [*chosen, EOS], [*rejected, EOS], limits(len(prompt) + length, 12))
    if isinstance(fitted, Example):
        for completion, original in zip(fitted.completions, ([*chosen, EOS], [*rejected, EOS]), strict=True):
            assert completion == original[:length]
            assert (completion[-1] == EOS) == (len(original) <= length)


@given(ids)
def test_defect_a_prompt_is_never_cut_and_one_beyond_the_limit_trains_nothing(prompt: list[int]) -> None:
    fitted = fit(prompt, [3], [4], limits(100, 6))
    if len(prompt) > 6:
        assert fitted == "pairsPromptTooLong"
    else:
        assert isinstance(fitted, Example)
        assert fitted.prompt == prompt


def test_overlong_pairs_are_cut_or_dropped_as_the_manifest_says() -> None:
    assert fit([5], [6, 7, 8], [9], limits(3, 2)) == Example([5], [[6, 7], [9]])
    assert fit([5], [6, 7, 8], [9], limits(3, 2, Overlong.DROP)) == "pairsOverlong"


def test_responses_that_are_equal_once_cut_teach_nothing() -> None:
    assert fit([5], [6, 7, 8], [6, 7, 9], limits(3, 2)) == "pairsEqual"


def test_every_pair_that_is_read_is_kept_or_counted(tmp_path: Path) -> None:
    def row(prompt_id: str, prompt: list[int], chosen: list[int], rejected: list[int]) -> dict[str, Any]:
        return {
            "prompt_id": prompt_id,
            "chosen_index": 1,
            "rejected_index": 0,
            "prompt_ids": prompt,
            "chosen_ids": chosen,
            "rejected_ids": rejected,
            "chosen_score": 1.0,
            "rejected_score": 0.0,
            "scores": [0.0, 1.0],
            "iteration": 1,
        }

    rows = [
        row("d", [5, 6], [7], [8]),
        row("a", [5, 6], [7, 7, 7, 7], [8]),
        row("c", [5, 6, 7, 8], [7], [8]),
        row("b", [5, 6], [7], [7]),
    ]
    for number, part in enumerate((rows[:2], rows[2:])):
        pq.write_table(pa.Table.from_pylist(part, schema=LABELS), tmp_path / f"labels-{number}.parquet")
    pairs = Pairs(tmp_path, limits(5, 3))
    counts = pairs.counts
    assert [pair.key for pair in pairs] == pairs.keys == [("a", 1, 0), ("d", 1, 0)]
    expected = [Example([5, 6], [answer, [8]], margin=1.0) for answer in ([7, 7, 7], [7])]
    assert [pair.example for pair in pairs] == expected
    assert counts == {"pairsRead": 4, "pairsTruncated": 1, "pairsPromptTooLong": 1, "pairsEqual": 1}
    assert counts["pairsRead"] == len(pairs) + counts["pairsPromptTooLong"] + counts["pairsEqual"]
