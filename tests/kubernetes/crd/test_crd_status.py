"""The status of a run on a real API server: what it takes, how large it may get, and what `kubectl get` shows of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.api import ApiError
from cluster.handle import Cluster
from rlhf_api.metrics import Metric
from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import ConditionType, Reason, StageName
from support.crd_server import create
from support.manifests import manifest

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]
Json = dict[str, Any]
NOW = "2026-01-31T12:00:00.123456Z"
#: What etcd takes of one object, by default.
ETCD_BYTES = 1_572_864
OF_THE_RUN = (StageName.PREFLIGHT, StageName.SFT, StageName.REWARD, StageName.JUDGE, StageName.EVALUATE, StageName.FINALIZE)
OF_AN_ITERATION = (StageName.SAMPLE, StageName.LABEL, StageName.REFERENCE, StageName.TRAIN, StageName.EVALUATE)
METRICS = {
    metric.value: {"value": 0.12345678901234568, "lower": -0.12345678901234568, "upper": 1234.5678901234567} for metric in Metric
}


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """A namespace with one run, of which nothing is kept."""
    with cluster.namespace() as name:
        create(cluster.api, manifest(), name)
        yield name


def stage(name: StageName) -> Json:
    """With every metric that there is, and the URL of the longest storage.url."""
    return {
        "name": name.value,
        "phase": "Succeeded",
        "attempt": 2**31 - 1,
        "infrastructureRetries": 1000,
        "applicationRetries": 100,
        "startTime": NOW,
        "completionTime": NOW,
        "retryAt": NOW,
        "resolving": True,
        "adopted": True,
        "artifact": {"url": "s3://" + "u" * 1195, "digest": "0" * 64, "fingerprint": "f" * 64, "folder": "0" * 64},
        "metrics": METRICS,
        "reason": "PendingDeadlineExceeded",
        "gpuSeconds": 123456789.123,
        "queueSeconds": 123456789.123,
        "lostGpuSeconds": 123456789.123,
    }


def gate(number: int) -> Json:
    message = "lengthAdjustedWinRateVsInitial is 0.5633, interval 0.5211 to 0.6055; the gate's max is 0.5500."
    return {"name": "g" * 61 + f"{number:02}", "verdict": "Tripped", "action": "Rollback", "message": message}


def status_at_its_bounds() -> Json:
    message = "m" * 2048
    return {
        "observedGeneration": 1,
        "phase": "Running",
        "conditions": [
            {"type": kind.value, "status": "True", "reason": "Running", "message": message, "lastTransitionTime": NOW}
            for kind in ConditionType
        ],
        "startTime": NOW,
        "completionTime": NOW,
        "image": "i" * 512,
        "iteration": 50,
        "stage": "train",
        "message": message,
        "stages": [stage(name) for name in OF_THE_RUN],
        "iterations": [
            {
                "number": number,
                "stages": [stage(name) for name in OF_AN_ITERATION],
                "metrics": METRICS,
                "gates": [gate(each) for each in range(16)],
                "discarded": True,
            }
            for number in range(1, 51)
        ],
        "bestIteration": 49,
        "winRate": 0.5633,
        "checkpoint": {"url": "s3://" + "u" * 1195, "digest": "0" * 64},
        "resolved": {f"prompts.source/{number}": "0" * 40 for number in range(256)},
        "adoptable": 250,
        "promptIterations": 50,
        "totals": {"gpuSeconds": 1.5, "queueSeconds": 2.5, "lostGpuSeconds": 3.5, "workSeconds": 4.5},
    }


def apply_status(cluster: Cluster, namespace: str, status: Json, name: str = "small") -> Json:
    """As the operator does: server-side, of the status alone."""
    body = {"apiVersion": "rlhf.dev/v1alpha1", "kind": "RLHFRun", "metadata": {"name": name}, "status": status}
    path = f"/apis/rlhf.dev/v1alpha1/namespaces/{namespace}/rlhfruns/{name}/status"
    query = {"fieldManager": "rlhf-operator", "force": "true", "fieldValidation": "Strict"}
    return cluster.api.request("PATCH", path, body, content_type="application/apply-patch+yaml", query=query)


def rows(table: str) -> list[dict[str, str]]:
    """A table of kubectl, by the columns' places: a cell may be empty."""
    head, *lines = table.splitlines()
    found = list(re.finditer(r"\S+", head))
    names, starts = [name[0] for name in found], [name.start() for name in found]
    ends = [*starts[1:], None]
    return [{name: line[start:end].strip() for name, start, end in zip(names, starts, ends, strict=True)} for line in lines]


def test_a_status_at_its_bounds_is_kept_whole_and_again(cluster: Cluster, namespace: str) -> None:
    create(cluster.api, manifest({"spec.iterations": 50}), namespace)
    status = status_at_its_bounds()
    kept = apply_status(cluster, namespace, status)
    assert kept["status"] == status
    assert RLHFRun.model_validate(kept).status == RLHFRunStatus.model_validate(status)
    size = len(json.dumps(kept, separators=(",", ":")))
    assert size > 1_400_000
    # No record of who wrote which field of which stage: it would be as long as the status, and both would be too much for etcd.
    assert len(json.dumps(kept["metadata"]["managedFields"])) < 20_000
    assert size < ETCD_BYTES
    entry = kept["status"]["iterations"][0]
    later = {**status, "iterations": [{**entry, "discarded": False}, *status["iterations"][1:]]}
    assert apply_status(cluster, namespace, later)["status"] == later


def test_what_the_models_write_as_a_status_is_kept(cluster: Cluster, namespace: str) -> None:
    create(cluster.api, manifest(), namespace)
    for status in (RLHFRunStatus(), RLHFRunStatus.model_validate(status_at_its_bounds() | {"iterations": []})):
        kept = apply_status(cluster, namespace, status.to_wire())
        assert kept["status"] == json.loads(json.dumps(status.to_wire()))
        assert RLHFRunStatus.model_validate(kept["status"]) == status


def test_entries_of_stages_and_iterations_are_replaced_as_a_whole(cluster: Cluster, namespace: str) -> None:
    create(cluster.api, manifest(), namespace)
    apply_status(cluster, namespace, {"stages": [{"name": "sft", "phase": "Failed", "reason": "OOMKilled", "attempt": 2}]})
    kept = apply_status(cluster, namespace, {"stages": [{"name": "sft", "phase": "Running", "attempt": 3}]})
    assert kept["status"]["stages"] == [{"name": "sft", "phase": "Running", "attempt": 3}]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"phase": "nonsense"}, 'supported values: "Pending", "Running"'),
        ({"iteration": -1}, "should be greater than or equal to 0"),
        ({"message": "m" * 2049}, "Too long: may not be more than 2048"),
        ({"iterations": [{"number": number} for number in range(1, 52)]}, "must have at most 50 items"),
        ({"iterations": [{"number": 1}, {"number": 1}]}, "duplicate"),
        ({"iterations": [{"number": 51}]}, "should be less than or equal to 50"),
        ({"stages": [{"name": "sft"}]}, "phase: Required value"),
        ({"stages": [{"name": "warmup", "phase": "Running"}]}, 'supported values: "preflight"'),
        ({"checkpoint": {"url": "s3://b/x", "digest": "z" * 64}}, "should match '^[0-9a-f]{64}$'"),
        ({"progress": 3}, ".status.progress: field not declared in schema"),
        ({"startTime": "yesterday"}, "must be of type date-time"),
    ],
    ids=[
        "phase",
        "negative",
        "long",
        "51-iterations",
        "twice",
        "51",
        "no-phase",
        "unknown-stage",
        "digest",
        "unknown-field",
        "time",
    ],
)
def test_a_wrong_status_is_refused(cluster: Cluster, place: str, status: Json, said: str) -> None:
    with pytest.raises(ApiError, match=re.escape(said)):
        apply_status(cluster, place, status)


def test_a_status_in_a_manifest_is_nobodys_word(cluster: Cluster, namespace: str) -> None:
    """It is a subresource: only who may write it does, and who writes it changes no spec."""
    kept = create(cluster.api, {**manifest(), "status": {"phase": "Succeeded"}}, namespace)
    assert "status" not in kept
    path = f"/apis/rlhf.dev/v1alpha1/namespaces/{namespace}/rlhfruns/small/status"
    change = {"spec": {"seed": 7}, "status": {"phase": "Running"}}
    written = cluster.api.patch(path, change, "application/merge-patch+json")
    assert (written["spec"]["seed"], written["status"]["phase"]) == (42, "Running")
    assert written["metadata"]["generation"] == 1


def test_kubectl_get_shows_where_runs_are(cluster: Cluster, namespace: str) -> None:
    url = "s3://bucket/small/policy/abc"
    metrics = {"winRateVsInitial": {"value": 0.5633333333333334, "lower": 0.52, "upper": 0.61}}
    statuses: dict[str, Json] = {
        "new": {},
        "begun": {"phase": "Running", "iteration": 0, "stage": "preflight", "message": "Stage preflight is running."},
        # The newest iteration has no metrics yet; the best one is another.
        "sampling": {
            "phase": "Running",
            "iteration": 2,
            "stage": "sample",
            "iterations": [{"number": 1, "metrics": metrics}, {"number": 2, "stages": [{"name": "sample", "phase": "Running"}]}],
            "bestIteration": 1,
            "winRate": 0.5633,
            "checkpoint": {"url": url, "digest": "0" * 64},
            "message": "Stage sample of iteration 2 of 3 is running.",
        },
        "worse": {"phase": "Running", "iteration": 1, "stage": "train", "bestIteration": 0, "winRate": 0.5},
    }
    for name, status in statuses.items():
        create(cluster.api, manifest({"metadata.name": name}), namespace)
        if status:
            apply_status(cluster, namespace, status, name)
    table = {row.pop("NAME"): row for row in rows(cluster.kubectl("get", "rlhf", "-n", namespace))}
    ages = {name: row.pop("AGE") for name, row in table.items()}
    assert all(age.endswith("s") for age in ages.values())
    assert table == {
        "new": {"PHASE": "", "ITERATION": "", "STAGE": "", "WINRATE": ""},
        "begun": {"PHASE": "Running", "ITERATION": "0", "STAGE": "preflight", "WINRATE": ""},
        "sampling": {"PHASE": "Running", "ITERATION": "2", "STAGE": "sample", "WINRATE": "0.5633"},
        "worse": {"PHASE": "Running", "ITERATION": "1", "STAGE": "train", "WINRATE": "0.5"},
    }
    wide = {row["NAME"]: row for row in rows(cluster.kubectl("get", "rlhfruns.rlhf.dev", "-n", namespace, "-o", "wide"))}
    assert list(wide["sampling"]) == ["NAME", "PHASE", "ITERATION", "STAGE", "WINRATE", "AGE", "BEST", "CHECKPOINT", "MESSAGE"]
    assert (wide["sampling"]["BEST"], wide["sampling"]["CHECKPOINT"]) == ("1", url)
    assert wide["sampling"]["MESSAGE"] == "Stage sample of iteration 2 of 3 is running."
    assert (wide["worse"]["BEST"], wide["worse"]["CHECKPOINT"]) == ("0", "")


def test_kubectl_explain_says_what_the_models_say(cluster: Cluster) -> None:
    said = cluster.kubectl("explain", "rlhf.spec.train.loss.beta")
    assert "How strongly the loss holds the policy near the reference (DPO's beta)." in " ".join(said.split())


def test_reasons_of_conditions_are_words_of_the_api(cluster: Cluster, namespace: str) -> None:
    create(cluster.api, manifest(), namespace)
    for reason in Reason:
        condition = {"type": "Failed", "status": "True", "reason": reason.value, "lastTransitionTime": NOW}
        apply_status(cluster, namespace, {"conditions": [condition]})
    assert cluster.kubectl("wait", "rlhf/small", "-n", namespace, "--for=condition=Failed", "--timeout=10s")
