"""Values: wrong ones are refused with words, and every right one is documented."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.documents import ROOT
from support.helm import CHART, Helm, HelmError, Values

sys.path.insert(0, str(ROOT / "tools"))
from chart_docs import UndocumentedValueError, documented, filled

WRONG: list[tuple[Values, str, str]] = [
    ({"imgae": {"tag": "1"}}, "/", "additional properties 'imgae' not allowed"),
    ({"image": {"tga": "1"}}, "/image", "additional properties 'tga' not allowed"),
    ({"image": {"repository": ""}}, "/image/repository", "minLength: got 0, want 1"),
    ({"image": {"repository": "a:1.0"}}, "/image/repository", "does not match pattern"),
    ({"image": {"digest": "abc"}}, "/image/digest", "does not match pattern"),
    ({"image": {"pullPolicy": "always"}}, "/image/pullPolicy", "value must be one of 'Always', 'IfNotPresent', 'Never'"),
    ({"image": {"pullSecrets": ["pull"]}}, "/image/pullSecrets/0", "got string, want object"),
    ({"watch": {"namespaces": "team-a"}}, "/watch/namespaces", "got string, want array"),
    ({"watch": {"namespaces": ["team-a", "team-a"]}}, "/watch/namespaces", "items at 0 and 1 are equal"),
    ({"watch": {"namespaces": ["Team"]}}, "/watch/namespaces/0", "does not match pattern"),
    ({"watchNamespaces": ["team-a"]}, "/", "additional properties 'watchNamespaces' not allowed"),
    ({"replicas": 2}, "/", "additional properties 'replicas' not allowed"),
    ({"crds": {"install": "no"}}, "/crds/install", "got string, want boolean"),
    ({"operator": {"workers": 0}}, "/operator/workers", "minimum: got 0, want 1"),
    ({"operator": {"workers": 1.5}}, "/operator/workers", "got number, want integer"),
    ({"operator": {"logLevel": "verbose"}}, "/operator/logLevel", "value must be one of 'debug', 'info', 'warning', 'error'"),
    ({"operator": {"port": 80}}, "/operator/port", "minimum: got 80, want 1,024"),
    ({"runs": {"allowedServiceAccounts": ["a,b"]}}, "/runs/allowedServiceAccounts/0", "does not match pattern"),
    ({"runs": {"runAsUser": 0}}, "/runs/runAsUser", "minimum: got 0, want 1"),
    ({"networkPolicy": {"apiServer": {"ports": []}}}, "/networkPolicy/apiServer/ports", "minItems: got 0, want 1"),
    ({"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.1"]}}}, "/networkPolicy/apiServer/cidrs/0", "does not match pattern"),
    ({"metrics": {"serviceMonitor": {"interval": 30}}}, "/metrics/serviceMonitor/interval", "got number, want string"),
    ({"resources": {"limit": {}}}, "/resources", "additional properties 'limit' not allowed"),
    ({"extraEnv": [{"name": "A", "value": 1}]}, "/extraEnv/0/value", "got number, want string"),
    ({"podLabels": {"app.kubernetes.io/name": "a"}}, "", "podLabels: the label app.kubernetes.io/name is the chart's own"),
    ({"commonLabels": {"helm.sh/chart": "a"}}, "", "commonLabels: the label helm.sh/chart is the chart's own"),
    ({"extraEnv": [{"name": "RLHF_OPERATOR_WORKERS"}]}, "", "extraEnv: RLHF_OPERATOR_WORKERS is written by the chart"),
    ({"nodeSelector": {"gpu": True}}, "/nodeSelector/gpu", "got boolean, want string"),
    ({"affinity": {"nodeAffinty": {}}}, "/affinity", "additional properties 'nodeAffinty' not allowed"),
    ({"serviceAccount": {"create": False}}, "", "with serviceAccount.create false, name a ServiceAccount that exists"),
]  # fmt: skip


@pytest.mark.cluster
@pytest.mark.parametrize(("values", "place", "words"), WRONG, ids=[json.dumps(values) for values, _, _ in WRONG])
def test_a_wrong_value_is_refused_with_its_place_and_what_is_wrong(helm: Helm, values: Values, place: str, words: str) -> None:
    with pytest.raises(HelmError) as refused:
        helm.render(values)
    assert words in str(refused.value)
    assert not place or f"at '{place.rstrip('/')}'" in str(refused.value)


@pytest.mark.cluster
def test_an_older_kubernetes_is_refused_by_its_version(helm: Helm) -> None:
    with pytest.raises(HelmError, match=re.escape(">=1.34.0-0 which is incompatible with Kubernetes v1.33.9")):
        helm("template", "rlhf", str(CHART), "--kube-version", "1.33.9")
    assert helm("template", "rlhf", str(CHART), "--kube-version", "v1.34.2-gke.100")


def test_the_table_of_values_is_what_values_yaml_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "chart_docs.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_value_without_a_comment_is_found() -> None:
    with pytest.raises(UndocumentedValueError, match=r"^image\.tag$"):
        documented("image:\n  # There.\n  repository: a\n  tag: b\n")
    with pytest.raises(UndocumentedValueError, match=r"^plain$"):
        documented("# Of something else.\n\nplain: 1\n")


def test_a_comment_of_a_whole_documents_what_is_in_it() -> None:
    (value,) = documented("# In two\n# lines.\nresources:\n  limits: {cpu: 1}\n")
    assert (value.path, value.default, value.meaning) == ("resources", {"limits": {"cpu": 1}}, "In two lines.")
    table = filled("head\n<!-- generated: values -->\nold\n<!-- end -->\ntail\n", [value])
    assert table.splitlines()[0] == "head"
    assert '| `resources` | `{"limits": {"cpu": 1}}` | In two lines. |' in table
    assert table.endswith("<!-- end -->\ntail\n")
    assert "old" not in table


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(paths_of_schema(schema)) - {"global"} == set(paths_of_values(values, schema))


def test_every_object_of_the_chart_in_the_schema_refuses_unknown_words() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    open_objects = [
        path for path, node in nodes_of(schema, ()) if "properties" in node and node.get("additionalProperties") is not False
    ]
    assert open_objects == []


def paths_of_schema(schema: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[str]:
    for key, node in schema["properties"].items():
        yield ".".join((*above, key))
        if node.get("properties"):
            yield from paths_of_schema(node, (*above, key))


def paths_of_values(values: dict[str, Any], schema: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[str]:
    """As deep as the schema describes them by name; of `affinity`, empty by default, what the schema says."""
    for key, value in values.items():
        yield ".".join((*above, key))
        below = schema["properties"].get(key, {})
        if below.get("properties") and isinstance(value, dict):
            yield from paths_of_values(value, below, (*above, key)) if value else paths_of_schema(below, (*above, key))


def nodes_of(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield "/".join(path), node
        for key, inner in node.items():
            yield from nodes_of(inner, (*path, key))
