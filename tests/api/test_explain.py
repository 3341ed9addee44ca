"""Every field can be asked for, by its path, and says what it is."""

from __future__ import annotations

import pytest

from rlhf_api.explain import UnknownFieldError, all_fields, describe


def test_every_field_has_a_description() -> None:
    assert [field.path for field in all_fields() if not field.description] == []


def test_a_description_is_a_sentence() -> None:
    assert [field.path for field in all_fields() if not field.description.rstrip('"').endswith((".", ":", "…"))] == []


def test_every_field_can_be_described_by_its_path() -> None:
    for field in all_fields():
        found = describe(field.path)
        assert (found.path, found.type, found.default, found.required) == (field.path, field.type, field.default, field.required)


def test_a_field_says_its_type_default_bounds_and_meaning() -> None:
    field = describe("spec.iterations")
    assert (field.type, field.default, field.required) == ("whole number", 3, False)
    assert field.constraints == ("at least 1", "at most 50")
    assert field.description.startswith("T.")


def test_a_metric_field_says_every_metric_with_its_unit() -> None:
    docs = dict(describe("spec.gates.metric").value_docs)
    assert docs["klToInitial"].endswith("(nats/sequence)")
    assert set(docs) == set(describe("spec.gates.metric").values)


def test_an_object_lists_its_fields() -> None:
    field = describe("spec.train.loss")
    first, *_, last = [child.name for child in field.children]
    assert (first, last) == ("type", "nllWeight")
    assert [child.path for child in describe("spec.gates").children][:2] == ["spec.gates.name", "spec.gates.metric"]


def test_the_root_is_the_whole_object() -> None:
    assert [child.name for child in describe().children] == ["apiVersion", "kind", "metadata", "spec", "status"]


@pytest.mark.parametrize(
    "path", ["spec.gates.metric", "gates.metric", "spec.gates[0].metric", "rlhfrun.spec.gates.metric", ".spec.gates.metric"]
)
def test_a_path_may_be_written_in_several_ways(path: str) -> None:
    assert describe(path).path == "spec.gates.metric"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("spec.trian", "spec has no field 'trian'; did you mean spec.train?"),
        ("spec.train.max_length", "did you mean spec.train.maxLength?"),
        ("warmStart", "did you mean spec.train.warmStart?"),
        ("spec.seed.zzz", "spec.seed has no field 'zzz': it is a plain value"),
        ("spec.retry.zzz", "spec.retry has no field 'zzz'; it has application, infrastructure, backoffSeconds"),
    ],
)
def test_a_wrong_path_says_what_was_meant(path: str, said: str) -> None:
    with pytest.raises(UnknownFieldError) as caught:
        describe(path)
    assert said in str(caught.value)
