"""Quantities and shares: the arithmetic that rules, the core and the stages have in common."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.conventions.quantity import parse_quantity
from rlhf_api.resource.sampling import split_completions


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (8, "8"),
        ("8", "8"),
        ("0.5", "0.5"),
        ("500m", "0.5"),
        ("1k", "1000"),
        ("2M", "2000000"),
        ("1G", "1000000000"),
        ("1Ki", "1024"),
        ("1.5Mi", "1572864"),
        ("64Gi", str(64 * 2**30)),
        ("1Ti", str(2**40)),
        ("1P", "1000000000000000"),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: int | str, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize(
    ("completions", "weights", "counts"),
    [
        (8, [0.5, 0.5], [4, 4]),
        (8, [1.0], [8]),
        (8, [1, 1, 1], [3, 3, 2]),
        (4, [0.6, 0.3, 0.1], [3, 1, 0]),
        (5, [1, 3], [1, 4]),
        (10, [0.7, 0.2, 0.1], [7, 2, 1]),
        (2, [1e-9, 1e9], [0, 2]),
    ],
)
def test_completions_are_split_by_largest_remainder(completions: int, weights: list[float], counts: list[int]) -> None:
    assert split_completions(completions, weights) == counts


@given(st.integers(2, 1024), st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=16))
def test_no_completion_is_lost_and_no_entry_is_off_by_one_or_more(completions: int, weights: list[float]) -> None:
    counts = split_completions(completions, weights)
    assert sum(counts) == completions
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - completions * weight / sum(weights)) < 1 + 1e-6
