"""Nonsense is answered with problems, never with a traceback."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_api.reading.manifest import Loc, read_manifest
from rlhf_api.validation import Problem, Validation, validate
from rlhf_api.validation.problem import value_at
from support.documents import ROOT
from support.manifests import manifest, places

EXAMPLE = read_manifest((ROOT / "examples" / "llama3-8b.yaml").read_text()).raw
NAMES = st.sampled_from(["spec", "metadata", "name", "type", "train", "gates", "pod", "[key]", "int"]) | st.text(max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=3)
    | st.dates()
    | st.just("\ud800")
)
NONSENSE = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.integers(), inner, max_size=4), max_leaves=20
)


PLACES = [loc for loc in places(EXAMPLE) if loc]


def assert_sane(checked: Validation) -> None:
    assert (checked.run is None) == bool(checked.invalid)
    for problem in checked.problems:
        assert isinstance(problem, Problem)
        assert problem.wrong
        assert str(problem).encode()
        assert "pydantic" not in str(problem)


@given(NONSENSE)
def test_nonsense_is_no_manifest(raw: Any) -> None:
    checked = validate(raw)
    assert_sane(checked)
    assert checked.run is None


@given(NONSENSE)
def test_a_spec_of_nonsense_is_refused(spec: Any) -> None:
    checked = validate({**manifest(), "spec": spec})
    assert_sane(checked)
    assert checked.run is None


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(PLACES), NONSENSE), min_size=1, max_size=4))
def test_a_good_manifest_with_nonsense_in_it_is_answered_with_problems(changes: list[tuple[Loc, Any]]) -> None:
    raw = deepcopy(EXAMPLE)
    for loc, value in changes:
        # What came before it may have taken the place away.
        with suppress(TypeError, IndexError):
            value_at(raw, loc[:-1])[loc[-1]] = value
    assert_sane(validate(raw))
    assert_sane(validate(raw, local=True))


@settings(max_examples=200)
@given(st.lists(st.sampled_from([loc for loc in PLACES if isinstance(loc[-1], str)]), min_size=1, max_size=4))
def test_a_good_manifest_with_fields_taken_out_is_valid_or_says_which(lost: list[Loc]) -> None:
    raw = deepcopy(EXAMPLE)
    for loc in lost:
        parent = value_at(raw, loc[:-1])
        if isinstance(parent, dict):
            parent.pop(loc[-1], None)
    assert_sane(validate(raw))


@settings(max_examples=100)
@given(st.sampled_from([loc for loc in PLACES if isinstance(loc[-1], str) and loc[0] == "spec" and "limits" not in loc[:-1]]))
def test_a_misspelt_field_is_found_wherever_it_is(loc: Loc) -> None:
    raw = deepcopy(EXAMPLE)
    parent = value_at(raw, loc[:-1])
    misspelt = f"{loc[-1]}X"
    parent[misspelt] = parent.pop(loc[-1])
    found = [problem for problem in validate(raw).invalid if problem.loc == (*loc[:-1], misspelt)]
    assert [problem.right for problem in found] == [f"did you mean {loc[-1]}?"]
