"""The CRD is what Kubernetes takes as a structural schema, small, bounded everywhere, and up to date."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from rlhf_api.crd.build import CRD_FILE, MAX_BYTES, custom_resource_definition, main, render
from rlhf_api.reading.manifest import read_manifest
from rlhf_api.resource.changes import CHANGEABLE
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.unions import UNIONS

CRD = custom_resource_definition()
VERSION = CRD["spec"]["versions"][0]
ROOT = VERSION["schema"]["openAPIV3Schema"]
#: What a structural schema may hold, of what we could write (apiextensions.k8s.io/v1 JSONSchemaProps).
ALLOWED = {
    "additionalProperties",
    "default",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
}


def nodes(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from nodes(field, (*path, name))
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], (*path, "*"))


NODES = list(nodes(ROOT))
FIELDS = [(path, node) for path, node in NODES if path[:1] in (("spec",), ("status",))]


def test_the_file_is_what_the_models_say() -> None:
    assert main(["--check"]) == 0
    assert CRD_FILE.read_text() == render()


def test_a_file_that_is_not_up_to_date_fails_the_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("rlhf_api.crd.build.CRD_FILE", tmp_path / "crd.yaml")
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_the_file_is_yaml_for_kubectl_and_says_the_same() -> None:
    assert json.loads(json.dumps(read_manifest(CRD_FILE.read_text()).raw)) == json.loads(json.dumps(CRD))
    assert "&" not in "".join(str(event.anchor or "") for event in yaml.parse(CRD_FILE.read_text()) if hasattr(event, "anchor"))


def test_the_copy_that_kubectl_apply_keeps_has_room_to_grow() -> None:
    assert len(json.dumps(CRD, separators=(",", ":")).encode()) < MAX_BYTES


def test_nothing_but_what_a_structural_schema_may_hold() -> None:
    assert {key for _, node in NODES for key in node} <= ALLOWED


def test_nothing_is_nullable() -> None:
    assert "null" not in json.dumps([{key: node[key] for key in node if key != "description"} for _, node in FIELDS])


def test_every_node_has_a_type_or_is_int_or_string() -> None:
    assert [path for path, node in NODES if ("type" in node) == bool(node.get("x-kubernetes-int-or-string"))] == []


def test_exclusive_bounds_are_booleans_beside_a_bound() -> None:
    for path, node in NODES:
        for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            assert exclusive not in node or (node[exclusive] is True and bound in node), path


def test_every_text_list_and_map_is_bounded() -> None:
    unbounded = []
    for path, node in FIELDS:
        kind = node.get("type")
        is_text = kind == "string" and "enum" not in node and node.get("format") not in ("date", "date-time")
        if (
            (is_text and "maxLength" not in node)
            or (kind == "array" and "maxItems" not in node)
            or ("additionalProperties" in node and "maxProperties" not in node)
            or (node.get("x-kubernetes-int-or-string") and "maxLength" not in node)
        ):
            unbounded.append(path)
    assert unbounded == []


def test_only_affinity_is_opaque() -> None:
    opaque = {path[-1] for path, node in NODES if node.get("x-kubernetes-preserve-unknown-fields")}
    assert opaque == {"affinity"}


def test_nothing_under_a_pod_and_nothing_of_status_has_a_default() -> None:
    below = [path for path, node in NODES if "default" in node and (path[0] == "status" or {"pod", "podDefaults"} & set(path[:-1]))]
    assert below == []


def test_defaults_are_what_the_models_say() -> None:
    spec = ROOT["properties"]["spec"]["properties"]
    assert spec["iterations"]["default"] == 3
    assert spec["train"]["default"] == {}
    assert spec["train"]["properties"]["optimization"]["properties"]["learningRate"]["default"] == 5e-7
    assert spec["prompts"]["properties"]["validation"]["default"] == {"size": 500}
    assert [entry["name"] for entry in spec["sample"]["properties"]["mixture"]["default"]] == ["hot", "mild"]


def test_a_default_leaves_nothing_out_that_is_required() -> None:
    for path, node in NODES:
        if isinstance(node.get("default"), dict):
            assert set(node.get("required", ())) <= set(node["default"]), path


def test_lists_merge_by_a_key_that_every_entry_has() -> None:
    maps = [(path, node) for path, node in NODES if node.get("x-kubernetes-list-type") == "map"]
    assert {path[-1] for path, _ in maps} >= {"mixture", "gates", "env", "volumes", "stages", "iterations", "conditions"}
    for path, node in maps:
        assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"]), path


def test_spec_is_required_and_status_is_a_subresource() -> None:
    assert ROOT["required"] == ["spec"]
    assert VERSION["subresources"] == {"status": {}}
    assert (VERSION["name"], VERSION["served"], VERSION["storage"]) == ("v1alpha1", True, True)


def test_kubectl_get_shows_where_a_run_is() -> None:
    names = CRD["spec"]["names"]
    assert (names["plural"], names["shortNames"], CRD["metadata"]["name"]) == ("rlhfruns", ["rlhf"], "rlhfruns.rlhf.dev")
    columns = VERSION["additionalPrinterColumns"]
    assert [column["name"] for column in columns if not column.get("priority")] == ["Phase", "Iteration", "Stage", "WinRate", "Age"]
    assert [column["name"] for column in columns if column.get("priority")] == ["Best", "Checkpoint", "Message"]
    for column in columns:
        node = ROOT
        for part in column["jsonPath"].strip(".").split("."):
            if part in ("creationTimestamp", "metadata"):
                break
            node = node["properties"][part] if "properties" in node else node["additionalProperties"]
            node = node.get("items", node)
        else:
            assert node["type"] == column["type"], column["name"]


def rules(*path: str) -> list[str]:
    return [rule["rule"] for rule in dict(NODES)[path]["x-kubernetes-validations"]]


def test_the_name_is_an_rfc_1035_label() -> None:
    (rule,) = rules()
    assert "size() <= 63" in rule
    assert "^[a-z]([-a-z0-9]*[a-z0-9])?$" in rule


def test_all_of_spec_but_what_may_change_is_immutable_with_has_on_both_sides() -> None:
    spec = rules("spec")
    immutable = {field for field in dict(NODES)[("spec",)]["properties"] if field not in CHANGEABLE} - {"queue"}
    for field in immutable:
        assert f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})" in spec
    for field in CHANGEABLE - {"queue.priorityClass", "cancel", "approvals", "annotations", "iterations"}:
        assert not any(f"self.{field} == " in rule for rule in spec)
    for field in ("queue.name", "queue.cpuName"):
        assert any(f"oldSelf.{field}" in rule for rule in spec)
    assert not any("priorityClass" in rule for rule in spec)


def test_cancel_goes_one_way_iterations_up_and_approvals_and_annotations_are_added() -> None:
    assert [rule for rule in rules("spec") if "oldSelf.cancel" in rule] == [
        "!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)"
    ]
    assert any("self.iterations >= oldSelf.iterations" in rule for rule in rules("spec"))
    assert any("oldSelf.approvals.all" in rule for rule in rules("spec"))
    assert any("oldSelf.annotations.all" in rule for rule in rules("spec"))


def test_changes_name_fields_that_there_are() -> None:
    wire = {field.alias or name for name, field in RLHFRunSpec.model_fields.items()}
    assert {path.split(".")[0] for path in CHANGEABLE} <= wire


def test_unions_are_rules_of_every_object_that_is_one() -> None:
    assert len(UNIONS) == 16
    for place in (("spec", "reward"), ("spec", "evaluate", "judge")):
        assert "(self.type == 'BradleyTerry') == has(self.bradleyTerry)" in rules(*place)
    assert "((has(self.replay) ? self.replay : 'Latest') == 'Window') == has(self.window)" in rules("spec", "train", "data")
    assert "!has(self.gamma) || (has(self.type) ? self.type : 'Sigmoid') in ['SimPO']" in rules("spec", "train", "loss")
    assert (
        "(has(self.min) ? 1 : 0) + (has(self.max) ? 1 : 0) + (has(self.plateau) ? 1 : 0) + (has(self.maxDrop) ? 1 : 0) == 1"
        in rules("spec", "gates", "*")
    )


def test_no_pod_takes_reserved_variables_labels_and_mounts() -> None:
    for pod in (("spec", "podDefaults"), ("spec", "sample", "pod"), ("spec", "train", "compute", "pod")):
        assert any("rlhf.dev/" in rule and "self.labels" in rule for rule in rules(*pod))
        assert any("'PET_'" in rule and "'LD_'" in rule and "'PYTHON'" in rule for rule in rules(*pod, "env", "*"))
        assert any("/dev/shm" in rule for rule in rules(*pod, "volumeMounts", "*"))
        assert "hostPath" not in dict(NODES)[(*pod, "volumes", "*")]["properties"]


def test_the_api_takes_no_store_in_a_folder() -> None:
    (rule,) = rules("spec", "storage", "url")
    assert rule.startswith("self.matches('^s3://")


def test_rules_hold_for_a_default_before_its_own_fields_have_theirs() -> None:
    """The API server checks `default: {}` as it stands: a field read without has() fails the whole CRD."""
    for path, node in NODES:
        if node.get("default") == {}:
            for rule in node.get("x-kubernetes-validations", []):
                read = set(re.findall(r"self\.(\w+)", rule["rule"]))
                assert read == set(re.findall(r"has\(self\.(\w+)\)", rule["rule"])), (path, rule)
