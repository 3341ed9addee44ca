"""The CustomResourceDefinition, generated from the models.

python -m rlhf_api.crd            writes crds/rlhf.dev_rlhfruns.yaml
python -m rlhf_api.crd --check    fails when that file is not what would be written
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rlhf_api.base import Model
from rlhf_api.reading.schema import Node, run_schema
from rlhf_api.resource import compute, data, evaluation, labeler, model, run, sampling, status, storage, training
from rlhf_api.resource.compute import Pod
from rlhf_api.resource.labeler import Labeler
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.resource.unions import CelRule
from rlhf_api.words import GROUP, KIND, VERSION

from .cel import root_rules, rules_of, text_rule

CRD_FILE = Path(__file__).resolve().parents[2] / f"{GROUP}_rlhfruns.yaml"
#: As JSON without blanks, as kubectl apply keeps a copy in an annotation of at most 256 KiB. The API server's own limit is 1.5 MiB.
MAX_BYTES = 240_000

_COLUMNS: list[dict[str, Any]] = [
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Iteration", "type": "integer", "jsonPath": ".status.iteration"},
    {"name": "Stage", "type": "string", "jsonPath": ".status.stage"},
    {
        "name": "WinRate",
        "type": "number",
        "jsonPath": ".status.winRate",
        "description": "Of the best iterate so far against pi_0, on the validation prompts.",
    },
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Best", "type": "integer", "jsonPath": ".status.bestIteration", "priority": 1},
    {"name": "Checkpoint", "type": "string", "jsonPath": ".status.checkpoint.url", "priority": 1},
    {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1},
]


def custom_resource_definition() -> dict[str, Any]:
    """The whole object, as kubectl apply takes it."""
    plural = f"{KIND.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": plural,
                "singular": KIND.lower(),
                "shortNames": ["rlhf"],
                "categories": ["rlhf"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _COLUMNS,
                    "schema": {"openAPIV3Schema": structural_schema()},
                }
            ],
        },
    }


def structural_schema() -> dict[str, Any]:
    """openAPIV3Schema of the one version."""
    root = run_schema()
    fields = root["properties"]
    return {
        "type": "object",
        "description": root["description"],
        "required": ["spec"],
        "x-kubernetes-validations": _written(root_rules()),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # With the name, so that the rule about it can say where it stands.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": _structural(fields["spec"]),
            "status": _structural(fields["status"]),
        },
    }


def render() -> str:
    """The file's text."""
    head = "# Generated from crds/rlhf_api by `python -m rlhf_api.crd`. Change the models, not this file.\n"
    return head + yaml.dump(
        custom_resource_definition(), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=10_000, allow_unicode=True
    )


#: Our own keys, and the keys of maps, which a structural schema cannot describe.
_OURS = ("x-model", "propertyNames")
#: Objects without defaults below them: podDefaults must be able to tell what a stage says, and status is what was written.
_WITHOUT_DEFAULTS = (Pod, RLHFRunStatus)
_FIRST = ("description", "type")
#: Their fields are described in podDefaults, and in reward.
_DESCRIBED_ELSEWHERE = (("pod", Pod), ("judge", Labeler))
#: Characters of an object that is written on one line.
_ONE_LINE = 400


def _structural(node: Node, name: str = "", *, defaults: bool = True, descriptions: bool = True) -> dict[str, Any]:
    """The node as Kubernetes takes it, described once where an object of the same kind stands elsewhere, too."""
    kind = _MODELS.get(node.get("x-model", ""))
    written = {key: node[key] for key in (*_FIRST, *node) if key in node and key not in _OURS}
    if not defaults:
        written.pop("default", None)
    if not descriptions:
        written.pop("description", None)
    defaults = defaults and kind not in _WITHOUT_DEFAULTS
    descriptions = descriptions and (name, kind) not in _DESCRIBED_ELSEWHERE
    if "properties" in node:
        written["properties"] = {
            field: _structural(inner, field, defaults=defaults, descriptions=descriptions)
            for field, inner in node["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if key in node:
            written[key] = _structural(node[key], defaults=defaults, descriptions=descriptions)
    rules = rules_of(kind) if kind is not None else []
    said = text_rule(node.get("pattern", ""))
    if said is not None:
        del written["pattern"]
        rules = [said]
    if rules:
        written["x-kubernetes-validations"] = _written(rules)
    return written


def _written(rules: list[CelRule]) -> list[dict[str, str]]:
    written = []
    for rule in rules:
        place = {} if rule.field is None else {"fieldPath": f".{rule.field}"}
        written.append({"rule": rule.rule, "message": rule.message, **place})
    return written


def _models() -> Mapping[str, type[Model]]:
    modules = (compute, data, evaluation, labeler, model, run, sampling, status, storage, training)
    found = (value for module in modules for value in vars(module).values() if isinstance(value, type) and issubclass(value, Model))
    return {kind.__name__: kind for kind in found}


_MODELS = _models()


class _Dumper(yaml.SafeDumper):
    """Writes every object out, for a CRD with anchors is hard to read; a short one on one line, or most would be indentation."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's name
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        if len(json.dumps(mapping)) <= _ONE_LINE:
            node.flow_style = True
        return node


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rlhf_api.crd", description="Write the CRD from the models.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is not up to date")
    options = parser.parse_args(arguments)
    text = render()
    if not options.check:
        CRD_FILE.write_text(text)
        return 0
    if CRD_FILE.exists() and CRD_FILE.read_text() == text:
        return 0
    print(f"{CRD_FILE.name} is not what the models say; run python -m rlhf_api.crd", file=sys.stderr)
    return 1
