"""The CRD on a real API server: it is taken, it takes what is right, and what it gives back is what the models say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.handle import Cluster
from rlhf_api.crd.build import CRD_FILE, custom_resource_definition
from rlhf_api.reading.manifest import read_manifest
from rlhf_api.resource.run import RLHFRun
from rlhf_api.validation import validate
from rlhf_trainer.quickstart.world import MINI, manifest_of
from support.crd_server import change_refused, create, refusal
from support.documents import ROOT, blocks
from support.manifests import manifest
from support.right_manifests import ACCEPTED

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]
Json = dict[str, Any]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
#: A pod has no defaults in the CRD, so that podDefaults can tell what a stage says.
PODS = ("pod", "podDefaults")


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace() as name:
        yield name


# --- the definition ---


def test_the_api_server_takes_it_within_its_budget_for_rules(cluster: Cluster) -> None:
    """As if it were new, under another group: the one that is there cannot be created again."""
    definition = custom_resource_definition()
    definition["metadata"]["name"] = "rlhfruns.other.example.com"
    definition["spec"]["group"] = "other.example.com"
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    made = cluster.api.request("POST", path, definition, query={"dryRun": "All", "fieldValidation": "Strict"})
    assert made["spec"]["versions"][0]["schema"] == definition["spec"]["versions"][0]["schema"]


def test_it_is_established_and_structural(cluster: Cluster) -> None:
    stored = cluster.api.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rlhfruns.rlhf.dev")
    standing = {condition["type"]: condition["status"] for condition in stored["status"]["conditions"]}
    assert standing["Established"] == standing["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in standing


def test_it_fits_into_the_annotation_that_kubectl_apply_keeps(cluster: Cluster) -> None:
    applied = cluster.kubectl("apply", "--dry-run=server", "-f", str(CRD_FILE))
    assert "rlhfruns.rlhf.dev" in applied


# --- what is right ---


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_kubectl_creates_every_example_as_it_stands(cluster: Cluster, place: str, example: Path, tmp_path: Path) -> None:
    """But for its namespace, which is that of somebody's cluster."""
    said = cluster.kubectl("create", "--dry-run=server", "-n", place, "-f", str(_in(place, example, tmp_path)), "-o", "name")
    assert said.strip() == f"rlhfrun.rlhf.dev/{read_manifest(example.read_text()).raw['metadata']['name']}"


def test_the_manifests_of_the_documents_are_accepted(cluster: Cluster, place: str) -> None:
    found = [read_manifest(block.text).raw for block in blocks("yaml") if "kind: RLHFRun" in block.text]
    assert found
    for raw in found:
        raw["spec"].setdefault("storage", {"url": "s3://bucket/of-a-local-run"})
        assert refusal(cluster.api, raw, place) is None


def test_the_quickstart_is_accepted_with_a_store_that_pods_can_reach(cluster: Cluster, place: str, tmp_path: Path) -> None:
    assert refusal(cluster.api, manifest_of(tmp_path, 0, MINI, "s3://bucket/quickstart"), place) is None
    assert "spec.storage: Required value" in str(refusal(cluster.api, manifest_of(tmp_path, 0, MINI, None), place))


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_what_is_near_to_wrong_is_right(cluster: Cluster, place: str, changes: Json) -> None:
    kept = create(cluster.api, manifest(changes), place, dry=True)
    assert validate(manifest(changes)).invalid == ()
    assert RLHFRun.model_validate(kept).spec == RLHFRun.model_validate(manifest(changes)).spec


@pytest.mark.parametrize("name", ["a", "a1", "a--b", "x" * 63, "x" + "9" * 62, "run-of-the-17th-of-may"])
def test_names_up_to_63_characters(cluster: Cluster, place: str, name: str) -> None:
    changes = {"metadata.name": name, "spec.gates": [{"name": name, "metric": "pairs", "min": 1, "action": "Warn"}]}
    assert refusal(cluster.api, manifest(changes), place) is None
    assert validate(manifest(changes)).ok


def test_generated_names_are_names(cluster: Cluster, place: str) -> None:
    raw = manifest({"metadata": {"generateName": "sweep-"}})
    assert create(cluster.api, raw, place, dry=True)["metadata"]["name"].startswith("sweep-")
    assert "the name must be an RFC 1035 label" in str(refusal(cluster.api, manifest({"metadata": {"generateName": "9-"}}), place))


BIGGEST: Json = {
    "spec.seed": 2**31 - 1,
    "spec.iterations": 50,
    "spec.image": "i" * 512,
    "spec.imagePullSecrets": [{"name": f"s{n}"} for n in range(16)],
    "spec.policy.chatTemplate": {"inline": "ü" * 32768},
    "spec.policy.stopTokenIds": [2**31 - 1] * 16,
    "spec.policy.model.uri": "hf://owner/" + "ü" * 1013,
    "spec.sft": {"data": [{"name": "d" * 61 + f"{n:02}", "uri": f"s3://bucket/{'u' * 1012}"} for n in range(32)]},
    "spec.sample.completionsPerPrompt": 1024,
    "spec.sample.mixture": [{"name": "m" * 61 + f"{n:02}", "systemPrompt": "語" * 1024} for n in range(16)],
    "spec.sample.engine.extraArgs": ["--compilation-config=" + "a" * 490] * 64,
    "spec.gates": [
        {"name": "g" * 61 + f"{n:02}", "metric": "lengthAdjustedWinRateVsInitial", "max": 0.5, "action": "Pause"} for n in range(16)
    ],
    "spec.approvals": [{"gate": "g" * 61 + f"{n % 16:02}", "iteration": n % 50 + 1} for n in range(256)],
    "spec.podDefaults": {
        "env": [{"name": "V" * 126 + f"{n:02}", "value": "é" * 4096} for n in range(64)],
        "labels": {f"example.com/{'l' * 61}{n:02}": "v" * 63 for n in range(32)},
        "nodeSelector": {f"example.com/{'l' * 61}{n:02}": "v" * 63 for n in range(32)},
        "annotations": {f"example.com/{'l' * 61}{n:02}": "v" * 1024 for n in range(32)},
        "tolerations": [{"key": "k" * 63, "operator": "Equal", "value": "v" * 63, "effect": "PreferNoSchedule"}] * 32,
        "volumes": [{"name": "v" * 61 + f"{n:02}", "configMap": {"name": "c" * 253}} for n in range(16)],
        "volumeMounts": [{"name": "v" * 61 + f"{n:02}", "mountPath": "/" + "m" * 509 + f"{n:02}"} for n in range(16)],
        "resources": {"limits": {f"example.com/{'r' * 61}{n:02}": 2**62 for n in range(16)}},
    },
}


def test_a_spec_at_its_bounds_is_kept_and_given_back_whole(cluster: Cluster, namespace: str) -> None:
    raw = manifest(BIGGEST)
    assert validate(raw).ok
    assert len(json.dumps(raw, ensure_ascii=False).encode()) > 800_000
    create(cluster.api, raw, namespace)
    stored = cluster.api.get(f"/apis/rlhf.dev/v1alpha1/namespaces/{namespace}/rlhfruns/small")
    assert RLHFRun.model_validate(stored).spec == RLHFRun.model_validate(raw).spec
    said = {"spec": {"approvals": [*raw["spec"]["approvals"][:-1], {"gate": "none", "iteration": 1}]}}
    assert "approvals can only be added" in str(change_refused(cluster.api, namespace, said))


@pytest.mark.parametrize(
    ("changes", "characters"),
    [
        ({"spec.prompts.source.column": "spalte_größe"}, "spalte_größe"),
        ({"spec.policy.model.uri": "s3://bucket/модель/日本"}, "s3://bucket/модель/日本"),
        ({"spec.sample.mixture": [{"name": "a", "systemPrompt": "👩‍🚀 \u202e\u0000"[:-1] + "\n\t«»"}]}, "👩‍🚀 \u202e\n\t«»"),
        ({"spec.podDefaults": {"annotations": {"example.com/who": "Ærøskøbing 🚢"}}}, "Ærøskøbing 🚢"),
    ],
    ids=["column", "uri", "prompt", "annotation"],
)
def test_unicode_comes_back_as_it_was(cluster: Cluster, place: str, changes: Json, characters: str) -> None:
    kept = create(cluster.api, manifest(changes), place, dry=True)
    assert json.dumps(characters) in json.dumps(kept["spec"])
    assert RLHFRun.model_validate(kept).spec == RLHFRun.model_validate(manifest(changes)).spec


def test_zero_and_small_numbers_where_they_mean_something(cluster: Cluster, place: str) -> None:
    changes = {
        "spec.seed": 0,
        "spec.ttlSecondsAfterFinished": 0,
        "spec.retry": {"application": 0, "infrastructure": 0, "backoffSeconds": 0},
        "spec.train.optimization": {"learningRate": 5e-324, "epochs": 0.001, "warmupRatio": 0},
        "spec.gates": [{"name": "g", "metric": "rewardMean", "min": -1.5e300, "action": "Stop"}],
        "spec.label": {"minYield": 0, "pairing": {"minMargin": 0}},
    }
    kept = create(cluster.api, manifest(changes), place, dry=True)
    assert RLHFRun.model_validate(kept).spec == RLHFRun.model_validate(manifest(changes)).spec


# --- defaults ---


@pytest.mark.parametrize(
    "raw",
    [manifest(), *(read_manifest(path.read_text()).raw for path in EXAMPLES)],
    ids=["small", *(path.stem for path in EXAMPLES)],
)
def test_the_api_server_fills_in_the_defaults_of_the_models_and_nothing_else(cluster: Cluster, place: str, raw: Json) -> None:
    raw = {**raw, "metadata": {"name": raw["metadata"]["name"]}}
    sent = RLHFRun.model_validate(raw)
    kept = create(cluster.api, raw, place, dry=True)
    assert _without(kept["spec"], PODS) == _without(sent.to_wire()["spec"], PODS)
    assert RLHFRun.model_validate(kept).spec == sent.spec
    assert _only(kept["spec"], PODS) == _only(raw["spec"], PODS) | ({} if "podDefaults" in raw["spec"] else {"podDefaults": {}})


@pytest.mark.parametrize(
    "changes",
    [
        {"spec.sft": {"data": [{"name": "a", "uri": "hf://owner/data"}]}},
        {"spec.reward": {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": [{"name": "a", "uri": "hf://a/b"}]}}}},
        {"spec.reward": {"type": "Pairwise", "pairwise": {"train": {"data": [{"name": "a", "uri": "hf://a/b"}]}}}},
        {"spec.prompts.test": {"source": {"uri": "hf://owner/test"}}},
        {"spec.sample.mixture": [{"name": "a"}]},
        {"spec.train.compute": {"deepspeed": {}}},
        {"spec.storage.retention": {}, "spec.evaluate.sampling": {}, "spec.evaluate.lmEval": {}, "spec.selection": {}},
        {"spec.queue": {}, "spec.storage.credentials": {}},
        {"spec.train": None, "spec.sft": None, "spec.gates": None},
    ],
    ids=str,
)
def test_defaults_below_what_is_optional(cluster: Cluster, place: str, changes: Json) -> None:
    kept = create(cluster.api, manifest(changes), place, dry=True)
    sent = validate(manifest(changes)).run
    assert sent is not None
    assert _without(kept["spec"], PODS) == _without(sent.to_wire()["spec"], PODS)


def test_what_the_models_write_is_what_the_api_server_keeps(cluster: Cluster, place: str) -> None:
    """The wire form of a run, sent again, changes nothing: rlhfctl may write a whole object back."""
    sent = RLHFRun.model_validate({**manifest(), "metadata": {"name": "small"}})
    once = create(cluster.api, {**sent.to_wire(), "metadata": {"name": "small"}}, place, dry=True)
    assert once["spec"] == sent.to_wire()["spec"]


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return [_without(item, keys) for item in value] if isinstance(value, list) else value


def _only(value: Any, keys: tuple[str, ...], path: str = "") -> Json:
    """What stands under these keys, by path."""
    found: Json = {}
    for key, item in value.items() if isinstance(value, dict) else ():
        place = f"{path}.{key}".strip(".")
        found |= {place: item} if key in keys else _only(item, keys, place)
    return found


def _in(place: str, example: Path, folder: Path) -> Path:
    raw = read_manifest(example.read_text()).raw
    if "namespace" not in raw["metadata"]:
        return example
    copy = folder / example.name
    copy.write_text(yaml.safe_dump({**raw, "metadata": {**raw["metadata"], "namespace": place}}))
    return copy
