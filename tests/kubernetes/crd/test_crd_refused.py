"""A wrong manifest is refused by the API server itself, at the field and with words to act on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.errors import KubectlError
from cluster.handle import Cluster
from rlhf_api.validation import Category, validate
from support.crd_server import refusal
from support.manifests import GONE, manifest
from support.wrong_manifests import ONLY_OURS, WRONG
from support.wrong_shapes import Wrong

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """A namespace without runs: nothing is kept in these tests."""
    with cluster.namespace() as name:
        yield name


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_the_api_server_refuses_it_at_the_field_and_says_what_would_be_right(cluster: Cluster, place: str, wrong: Wrong) -> None:
    said = refusal(cluster.api, manifest(wrong.changes), place)
    assert said is not None, "accepted"
    assert wrong.said in said
    assert wrong.place in said or wrong.place in ("apiVersion", "kind")
    assert "rule evaluation error" not in said
    assert "internal error" not in said.lower()


@pytest.mark.parametrize(("rule", "changes"), [(rule, each) for rule, table in ONLY_OURS.items() for each in table], ids=str)
def test_what_only_our_own_validation_knows_is_listed(cluster: Cluster, place: str, rule: str, changes: dict[str, Any]) -> None:
    assert refusal(cluster.api, manifest(changes), place) is None
    assert [problem.category for problem in validate(manifest(changes)).problems] == [Category.INVALID], rule


def test_what_this_version_cannot_do_yet_is_no_business_of_the_api(cluster: Cluster, place: str) -> None:
    """A CRD outlives a version of the operator, which says so in the run's status."""
    human = manifest({"spec.evaluate.judge": {"type": "Human", "human": {}}})
    assert refusal(cluster.api, human, place) is None
    assert [problem.category for problem in validate(human).problems] == [Category.NOT_AVAILABLE]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"spec.train.loss": {"gamma": 1}, "spec.sample.parallelism": 9},
            (
                "spec.train.loss.gamma: Invalid value: gamma belongs to type SimPO; remove it, or change type",
                "spec.sample.parallelism: Invalid value: there are not so many shards; lower parallelism, or raise shards",
            ),
        ),
        ({"spec.trian": {}}, ('strict decoding error: unknown field "spec.trian"',)),
        ({"metadata.name": "a.b"}, ("metadata.name: Invalid value: the name must be an RFC 1035 label",)),
        ({"spec.storage.url": GONE}, ("spec.storage.url: Required value",)),
    ],
    ids=str,
)
def test_kubectl_create_prints_them_all(cluster: Cluster, place: str, changes: dict[str, Any], said: tuple[str, ...]) -> None:
    with pytest.raises(KubectlError) as caught:
        cluster.kubectl("create", "--dry-run=server", "-n", place, "-f", "-", input=json.dumps(manifest(changes)))
    for words in said:
        assert words in caught.value.stderr
