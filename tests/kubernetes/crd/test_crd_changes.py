"""What of a spec may change while the run exists: the API server lets it through, and nothing else, whoever asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.errors import KubectlError
from cluster.handle import Cluster
from rlhf_api.resource.changes import CHANGEABLE
from rlhf_api.resource.run import RLHFRunSpec
from support.crd_server import change, change_refused, create
from support.manifests import manifest

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]
Json = dict[str, Any]
SFT = {"data": [{"name": "a", "uri": "hf://owner/data"}]}
OTHER = {"type": "BradleyTerry", "bradleyTerry": {"model": {"uri": "hf://owner/other"}}}
PAUSES = {"name": "g", "metric": "rewardMean", "max": 1.0, "action": "Pause"}
APPROVED = {"gate": "g", "iteration": 1}
ANSWERED = {"iteration": 1, "digest": "a" * 64}

#: A run as people submit it, and one in which everything stands that may be absent.
RUNS: dict[str, Json] = {
    "plain": {},
    "full": {
        "spec.image": "example/image:1",
        "spec.imagePullPolicy": "Always",
        "spec.sft": SFT,
        "spec.iterations": 5,
        "spec.gates": [PAUSES],
        "spec.approvals": [APPROVED],
        "spec.queue": {"name": "gpu", "priorityClass": "low", "cpuName": "cpu"},
        "spec.suspend": True,
        "spec.activeDeadlineSeconds": 60,
        "spec.pendingDeadlineSeconds": 60,
        "spec.ttlSecondsAfterFinished": 60,
    },
    "cancelled": {"spec.cancel": True},
    "asking": {"spec.reward": {"type": "Human", "human": {}}, "spec.annotations": [ANSWERED]},
}

#: Of each field that is there for good, a change in "plain" (where it is absent, or has its default) and one in "full".
FIXED: dict[str, Json] = {
    "image": {"plain": "example/image:2", "full": "example/image:2"},
    "imagePullPolicy": {"plain": "Never", "full": None},
    "imagePullSecrets": {"plain": [{"name": "s"}], "full": [{"name": "s"}]},
    "seed": {"plain": 43, "full": 0},
    "storage": {"plain": {"url": "s3://bucket/other"}, "full": {"region": "us-east-1"}},
    "policy": {"plain": {"dtype": "float32"}, "full": {"model": {"revision": "v2"}}},
    "sft": {"plain": SFT, "full": None},
    "reward": {"plain": OTHER, "full": OTHER},
    "prompts": {"plain": {"perIteration": 5}, "full": {"test": {"size": 3}}},
    "sample": {"plain": {"shards": 4}, "full": {"queue": {"priorityClass": "high"}}},
    "label": {"plain": {"minYield": 0.1}, "full": {"pod": {"env": [{"name": "A", "value": "b"}]}}},
    "reference": {"plain": {"type": "Previous"}, "full": {"shards": 2}},
    "train": {"plain": {"optimization": {"learningRate": 6.0e-7}}, "full": {"loss": {"beta": 0.2}}},
    "evaluate": {"plain": {"allowTrainingReward": True}, "full": {"sampling": {"temperature": 0.5}}},
    "selection": {"plain": {"mode": "Min"}, "full": {"metric": "rewardMean"}},
    "gates": {"plain": [PAUSES], "full": [PAUSES, {**PAUSES, "name": "h"}]},
    "podDefaults": {"plain": {"labels": {"a": "b"}}, "full": {"shmSize": "1Gi"}},
    "retry": {"plain": {"application": 5}, "full": {"backoffSeconds": 0}},
}

ALLOWED: list[tuple[str, Json]] = [
    ("plain", {"suspend": True}),
    ("full", {"suspend": False}),
    ("full", {"suspend": None}),
    ("plain", {"cancel": True}),
    ("cancelled", {"suspend": True}),
    ("plain", {"iterations": 4}),
    ("full", {"iterations": 50}),
    ("full", {"approvals": [APPROVED, {"gate": "g", "iteration": 2}]}),
    ("full", {"iterations": 6, "approvals": [APPROVED, {"gate": "g", "iteration": 6}]}),
    ("asking", {"annotations": [ANSWERED, {"iteration": 2, "digest": "b" * 64}]}),
    *(
        (run, {field: value})
        for field in ("activeDeadlineSeconds", "pendingDeadlineSeconds", "ttlSecondsAfterFinished")
        for run, value in (("plain", 1), ("full", 3600), ("full", 1), ("full", None))
    ),
    ("plain", {"queue": {"priorityClass": "high"}}),
    ("full", {"queue": {"priorityClass": "high"}}),
    ("full", {"queue": {"priorityClass": None}}),
    ("plain", {"suspend": True, "iterations": 9, "activeDeadlineSeconds": 5, "queue": {"priorityClass": "p"}}),
]

REFUSED: list[tuple[str, Json, str]] = [
    ("cancelled", {"cancel": False}, "spec.cancel: Invalid value: cancel goes one way; submit another run"),
    ("cancelled", {"cancel": None}, "spec.cancel: Invalid value: cancel goes one way; submit another run"),
    ("plain", {"iterations": 2}, "spec.iterations: Invalid value: iterations can only be raised"),
    # Its default, 3, is what an absent one means.
    ("full", {"iterations": None}, "spec.iterations: Invalid value: iterations can only be raised"),
    ("full", {"approvals": []}, "spec.approvals: Invalid value: approvals can only be added"),
    ("full", {"approvals": None}, "spec.approvals: Invalid value: approvals can only be added"),
    (
        "full",
        {"approvals": [{"gate": "g", "iteration": 2}]},
        "spec.approvals: Invalid value: approvals can only be added",
    ),
    (
        "full",
        {"approvals": [APPROVED, {"gate": "no", "iteration": 1}]},
        "spec.approvals: Invalid value: an approval names a gate that there is not",
    ),
    (
        "full",
        {"approvals": [APPROVED, {"gate": "g", "iteration": 6}]},
        "spec.approvals: Invalid value: an approval is of an iteration that there is not; write 1 to spec.iterations",
    ),
    ("asking", {"annotations": []}, "spec.annotations: Invalid value: annotations can only be added"),
    ("asking", {"annotations": None}, "spec.annotations: Invalid value: annotations can only be added"),
    (
        "asking",
        {"annotations": [{"iteration": 1, "digest": "b" * 64}]},
        "spec.annotations: Invalid value: annotations can only be added",
    ),
    (
        "asking",
        {"annotations": [ANSWERED, {"iteration": 4, "digest": "b" * 64}]},
        "spec.annotations: Invalid value: annotations are of an iteration that there is not; write 1 to spec.iterations",
    ),
    ("plain", {"queue": {"name": "gpu"}}, "spec.queue.name: Invalid value: queue.name cannot change while the run exists"),
    ("plain", {"queue": {"cpuName": "cpu"}}, "spec.queue.cpuName: Invalid value: queue.cpuName cannot change"),
    ("full", {"queue": {"name": "other"}}, "spec.queue.name: Invalid value: queue.name cannot change"),
    ("full", {"queue": {"cpuName": None}}, "spec.queue.cpuName: Invalid value: queue.cpuName cannot change"),
    ("full", {"queue": None}, "spec.queue.name: Invalid value: queue.name cannot change"),
    ("plain", {"suspend": True, "seed": 1}, "spec.seed: Invalid value: seed cannot change while the run exists"),
    ("plain", {"trian": {}}, 'unknown field "spec.trian"'),
    ("plain", {"activeDeadlineSeconds": 0}, "should be greater than or equal to 1"),
]


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """A namespace with the RUNS; what is tried on them is not kept."""
    with cluster.namespace() as name:
        for run, changes in RUNS.items():
            create(cluster.api, manifest({**changes, "metadata.name": run}), name)
        yield name


@pytest.mark.parametrize(("run", "spec"), ALLOWED, ids=str)
def test_what_may_change_does(cluster: Cluster, place: str, run: str, spec: Json) -> None:
    kept = change(cluster.api, place, {"spec": spec}, name=run, dry=True)["spec"]
    for field, value in spec.items():
        if field == "queue":
            assert kept["queue"].get("priorityClass") == value["priorityClass"]
        else:
            # An absent suspend is its default.
            assert kept.get(field) == (value if value is not None or field != "suspend" else False)


def test_everything_that_may_change_is_tried() -> None:
    tried = {
        f"{field}.{inner}" if field == "queue" else field for _, spec in ALLOWED for field in spec for inner in ("priorityClass",)
    }
    assert tried == CHANGEABLE


@pytest.mark.parametrize(("run", "spec", "said"), REFUSED, ids=str)
def test_what_goes_one_way_does_not_go_back(cluster: Cluster, place: str, run: str, spec: Json, said: str) -> None:
    assert said in str(change_refused(cluster.api, place, {"spec": spec}, name=run))


@pytest.mark.parametrize(("field", "run"), [(field, run) for field, changes in FIXED.items() for run in changes])
def test_what_is_fixed_cannot_come_go_or_change(cluster: Cluster, place: str, field: str, run: str) -> None:
    said = change_refused(cluster.api, place, {"spec": {field: FIXED[field][run]}}, name=run)
    assert f"spec.{field}: Invalid value: {field} cannot change while the run exists; submit another run" in str(said)


def test_every_field_that_is_fixed_is_tried() -> None:
    fields = {field.alias or name for name, field in RLHFRunSpec.model_fields.items()}
    assert FIXED.keys() == fields - CHANGEABLE - {"queue"}


def test_a_spec_written_back_as_it_is_changes_nothing(cluster: Cluster, place: str) -> None:
    for run in RUNS:
        path = f"/apis/rlhf.dev/v1alpha1/namespaces/{place}/rlhfruns/{run}"
        stored = cluster.api.get(path)
        kept = cluster.api.request("PUT", path, stored, query={"fieldValidation": "Strict"})
        assert kept["metadata"]["generation"] == stored["metadata"]["generation"] == 1


def test_labels_and_annotations_are_the_users(cluster: Cluster, place: str) -> None:
    metadata = {"labels": {"team": "x"}, "annotations": {"note": "ü"}}
    kept = change(cluster.api, place, {"metadata": metadata}, name="plain", dry=True)
    assert kept["metadata"]["labels"] == {"team": "x"}


def test_kubectl_apply_of_a_changed_manifest_says_which_field_and_what_to_do(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(manifest()))
    changed = manifest({"spec.seed": 7, "spec.train.loss": {"beta": 0.2}, "spec.iterations": 4})
    with pytest.raises(KubectlError) as caught:
        cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(changed))
    assert "spec.seed: Invalid value: seed cannot change while the run exists; submit another run" in caught.value.stderr
    assert "spec.train: Invalid value: train cannot change while the run exists; submit another run" in caught.value.stderr
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(manifest({"spec.iterations": 4})))
    shown = cluster.kubectl("get", "rlhf", "small", "-n", namespace, "-o", "jsonpath={.spec.iterations}")
    assert shown == "4"
