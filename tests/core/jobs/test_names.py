"""Names of children: functions of run, iteration, stage and attempt."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.words import StageName
from rlhf_operator.core.jobs.names import child_name

RUN_NAMES = st.from_regex(r"\A[a-z]([-a-z0-9]{0,61}[a-z0-9])?\Z")
CHILDREN = st.tuples(RUN_NAMES, st.none() | st.integers(1, 50), st.sampled_from(StageName), st.integers(1, 99999))


@given(CHILDREN)
def test_a_childs_name_is_an_rfc_1035_label_with_room_for_an_index(child: tuple[str, int | None, StageName, int]) -> None:
    name = child_name(*child)
    assert len(name) <= 52
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)


@given(CHILDREN, CHILDREN)
def test_different_children_have_different_names(one: Any, other: Any) -> None:
    assert (child_name(*one) == child_name(*other)) == (one == other)


def test_runs_whose_names_look_like_children_are_kept_apart() -> None:
    assert child_name("x", 1, StageName.EVALUATE, 1) != child_name("x-i1", None, StageName.EVALUATE, 1)
