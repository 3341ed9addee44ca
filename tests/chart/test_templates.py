"""What the chart renders, whatever the values: permissions, scopes, selectors, names, and what reaches the operator's pod."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from rlhf_operator.kubernetes import app
from rlhf_operator.kubernetes.settings import settings_from
from support.documents import ROOT
from support.helm import CHART, Helm, Manifest, Values, of_kind, the

pytestmark = pytest.mark.cluster

CLUSTER: Values = {}
NAMESPACED: Values = {"watch": {"namespaces": ["team-a", "team-b"]}}
#: What is off by default, on.
ALL: Values = {
    "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}, "dashboard": {"enabled": True}},
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "apiServer": {"cidrs": ["10.0.0.1/32"]},
    },
    "commonLabels": {"team": "platform"},
}
MODES = pytest.mark.parametrize("values", [CLUSTER, NAMESPACED, ALL], ids=["cluster", "namespaced", "all"])

_CLUSTER_SCOPED = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Namespace", "PriorityClass"}


@MODES
def test_lint_finds_nothing(helm: Helm, values: Values) -> None:
    assert "[WARNING]" not in helm("lint", str(CHART), "--strict", "--kube-version", "1.34.0", values=values)


def test_the_version_of_the_image_is_the_projects_own() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert chart["appVersion"] == project["version"]


def test_namespaced_mode_has_no_object_of_the_cluster_but_the_crd(helm: Helm) -> None:
    rendered = helm.render(NAMESPACED)
    assert {manifest["kind"] for manifest in rendered} & _CLUSTER_SCOPED == {"CustomResourceDefinition"}
    without = helm.render({**NAMESPACED, "crds": {"install": False}})
    assert not {manifest["kind"] for manifest in without} & _CLUSTER_SCOPED
    assert all(manifest["metadata"]["namespace"] for manifest in without)


def test_namespaced_mode_lies_in_the_releases_namespace_and_in_those_it_watches(helm: Helm) -> None:
    rendered = helm.render({**NAMESPACED, "crds": {"install": False}})
    watched = [manifest for manifest in rendered if manifest["metadata"]["namespace"] != "rlhf-system"]
    assert {(manifest["kind"], manifest["metadata"]["namespace"]) for manifest in watched} == {
        (kind, namespace) for kind in ("Role", "RoleBinding") for namespace in ("team-a", "team-b")
    }


def test_both_modes_give_the_same_permissions_on_runs(helm: Helm) -> None:
    (cluster,) = [
        role
        for role in of_kind(helm.render(CLUSTER), "ClusterRole")
        if "-" not in role["metadata"]["name"].removeprefix("rlhf-rlhf-operator")
    ]
    namespaced = [role for role in of_kind(helm.render(NAMESPACED), "Role") if role["metadata"]["namespace"] != "rlhf-system"]
    assert [role["rules"] for role in namespaced] == [cluster["rules"]] * 2


@pytest.mark.parametrize("values", [CLUSTER, NAMESPACED], ids=["cluster", "namespaced"])
def test_the_operator_may_do_what_it_says_that_it_does_and_no_more(helm: Helm, values: Values) -> None:
    rendered = helm.render({**values, "aggregatedRoles": {"create": False}})
    granted = {
        (group, resource, verb)
        for role in of_kind(rendered, "Role", "ClusterRole")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    rows = re.findall(r"^\| ([a-z0-9.]*) +\| ([a-z/]+) +\| ([a-z ]+?) *\|", app.__doc__ or "", re.MULTILINE)
    said = {(group, resource, verb) for group, resource, verbs in rows if resource != "resource" for verb in verbs.split()}
    assert granted == said


@MODES
def test_no_role_has_a_wildcard_or_reads_secrets(helm: Helm, values: Values) -> None:
    rules = [rule for role in of_kind(helm.render(values), "Role", "ClusterRole") for rule in role["rules"]]
    words = [word for rule in rules for field in ("apiGroups", "resources", "verbs") for word in rule[field]]
    assert "*" not in words
    assert not {"secrets", "pods/exec", "serviceaccounts/token", "impersonate", "escalate", "bind"} & set(words)
    # Whoever makes pods reads every Secret of the namespace. Jobs make them, and there is no operator without that.
    harmless = {"get", "list", "watch", "delete"}
    assert not [rule for rule in rules if "pods" in rule["resources"] and set(rule["verbs"]) - harmless]


@MODES
def test_the_lease_is_the_only_thing_that_it_may_change_in_its_own_namespace(helm: Helm, values: Values) -> None:
    rendered = helm.render(values)
    (role,) = [role for role in of_kind(rendered, "Role") if role["metadata"]["namespace"] == "rlhf-system"]
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {"leases"}
    named = [rule for rule in role["rules"] if rule["verbs"] != ["create"]]
    assert [rule["resourceNames"] for rule in named] == [[environment(rendered)["RLHF_OPERATOR_LEASE_NAME"]]]


def test_roles_for_people_are_there_in_cluster_mode_alone_and_never_let_them_write_a_status(helm: Helm) -> None:
    people = [role for role in of_kind(helm.render(CLUSTER), "ClusterRole") if "aggregate" in str(role["metadata"]["labels"])]
    assert {role["metadata"]["name"].rpartition("-")[2] for role in people} == {"viewer", "editor"}
    writes = [rule for role in people for rule in role["rules"] if set(rule["verbs"]) - {"get", "list", "watch"}]
    assert [rule["resources"] for rule in writes] == [["rlhfruns"]]
    without = helm.render({"aggregatedRoles": {"create": False}})
    assert not [role for role in of_kind(without, "ClusterRole") if "aggregate" in str(role["metadata"]["labels"])]
    assert not of_kind(helm.render(NAMESPACED), "ClusterRole")


def test_without_rbac_create_nobody_gets_a_permission(helm: Helm) -> None:
    rendered = helm.render({"rbac": {"create": False}, "aggregatedRoles": {"create": False}})
    assert not of_kind(rendered, "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


@MODES
def test_every_binding_leads_from_a_role_of_the_chart_to_the_operators_account(helm: Helm, values: Values) -> None:
    rendered = helm.render({**values, "serviceAccount": {"name": "own"}})
    roles = {
        (role["kind"], role["metadata"]["name"], role["metadata"].get("namespace"))
        for role in of_kind(rendered, "Role", "ClusterRole")
    }
    bindings = of_kind(rendered, "RoleBinding", "ClusterRoleBinding")
    assert bindings
    for binding in bindings:
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"], binding["metadata"].get("namespace")) in roles
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "own", "namespace": "rlhf-system"}]
    assert pod(rendered)["serviceAccountName"] == "own"
    assert the(rendered, "ServiceAccount")["metadata"]["name"] == "own"


def test_the_crd_is_the_generated_one_and_is_kept(helm: Helm) -> None:
    file = CHART / "files" / "rlhf.dev_rlhfruns.yaml"
    generated = (ROOT / "crds" / "rlhf.dev_rlhfruns.yaml").read_text(encoding="utf-8")
    assert file.read_text(encoding="utf-8") == generated, "run: make generate"
    rendered = the(helm.render(CLUSTER), "CustomResourceDefinition")
    expected = yaml.load(generated, Loader=yaml.CSafeLoader)
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert rendered["metadata"]["name"] == expected["metadata"]["name"]
    assert rendered["spec"] == expected["spec"]
    assert not of_kind(helm.render({"crds": {"install": False}}), "CustomResourceDefinition")


@MODES
def test_every_container_is_confined(helm: Helm, values: Values) -> None:
    """That Pod Security's restricted level admits them is asked of the API server, in test_server.py."""
    pods = list(pods_of(helm.render(values)))
    assert len(pods) == 2
    for spec in pods:
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_only_the_operators_own_pod_carries_its_token(helm: Helm) -> None:
    rendered = helm.render(CLUSTER)
    assert the(rendered, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod(rendered)["automountServiceAccountToken"] is True
    assert the(rendered, "Pod")["spec"]["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in the(rendered, "Pod")["spec"]


@MODES
def test_service_policy_and_disruption_budget_select_the_operators_pod_and_no_other(helm: Helm, values: Values) -> None:
    rendered = helm.render(values)
    labels = the(rendered, "Deployment")["spec"]["template"]["metadata"]["labels"]
    stage = {
        "app.kubernetes.io/name": "rlhf-operator",
        "app.kubernetes.io/managed-by": "rlhf-operator",
        "app.kubernetes.io/component": "train",
    }
    selectors = [
        the(rendered, "Deployment")["spec"]["selector"]["matchLabels"],
        the(rendered, "Service")["spec"]["selector"],
        the(rendered, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        the(rendered, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= the(rendered, "Pod")["metadata"]["labels"].items()
        assert not selector.items() <= stage.items()


def test_the_operator_reaches_dns_and_the_api_server_and_is_reached_on_its_port(helm: Helm) -> None:
    spec = the(helm.render(CLUSTER), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [{"ports": [{"protocol": "TCP", "port": "http"}]}]
    assert {(port["protocol"], port["port"]) for rule in spec["egress"] for port in rule["ports"]} == {
        ("UDP", 53),
        ("TCP", 53),
        ("TCP", 443),
        ("TCP", 6443),
    }
    narrow = the(helm.render(ALL), "NetworkPolicy")["spec"]
    assert narrow["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    assert narrow["ingress"][0]["from"][0] == {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    tester = the(helm.render(ALL), "Pod")["metadata"]["labels"]
    assert narrow["ingress"][0]["from"][1]["podSelector"]["matchLabels"].items() <= tester.items()


def test_one_operator_at_a_time(helm: Helm) -> None:
    spec = the(helm.render(CLUSTER), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert the(helm.render(CLUSTER), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_every_variable_is_one_that_the_operator_reads(helm: Helm) -> None:
    class Recording(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            read.add(key)
            return super().get(key, default)

    read: set[str] = set()
    values = {
        **NAMESPACED,
        "runs": {"imagePullPolicy": "Always", "allowedServiceAccounts": ["rlhf-s3"]},
        "operator": {"workers": 3, "logLevel": "debug"},
    }
    given = Recording(environment(helm.render(values)))
    settings = settings_from(given, default_identity="unused", default_namespace="unused")
    assert {name for name in given if name.startswith("RLHF_OPERATOR_")} <= read
    assert settings.namespaces == ("team-a", "team-b")
    assert settings.installation.image == "rlhf-operator:0.1.0"
    assert settings.installation.image_pull_policy == "Always"
    assert settings.installation.allowed_service_accounts == {"rlhf-s3"}
    assert settings.workers == 3
    assert settings.log_level == 10
    assert settings.lease.name == "rlhf-rlhf-operator"


def test_empty_values_are_the_operators_own_defaults(helm: Helm) -> None:
    settings = settings_from(environment(helm.render(CLUSTER)), default_identity="unused", default_namespace="unused")
    assert settings.namespaces == ()
    assert settings.installation.allowed_service_accounts == frozenset()
    assert settings.installation.image_pull_policy is None


@pytest.mark.parametrize(("edge", "word"), [("minimum", 0), ("maximum", -1)])
def test_the_operator_takes_the_bounds_of_the_schema(helm: Helm, edge: str, word: int) -> None:
    fields = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))["properties"]["operator"]["properties"]
    values = {name: field[edge] if edge in field else field["enum"][word] for name, field in fields.items()}
    settings = settings_from(environment(helm.render({"operator": values})), default_identity="unused", default_namespace="unused")
    taken = (settings.workers, settings.resync_seconds, settings.http_port, settings.log_format)
    assert taken == (values["workers"], values["resyncSeconds"], values["port"], values["logFormat"])


@pytest.mark.parametrize(
    ("values", "path", "expected"),
    [
        ({"image": {"repository": "a.example:5000/rlhf", "tag": "1.2"}}, "containers.0.image", "a.example:5000/rlhf:1.2"),
        ({"image": {"tag": "1.2", "digest": f"sha256:{'a' * 64}"}}, "containers.0.image", f"rlhf-operator@sha256:{'a' * 64}"),
        ({"image": {"pullPolicy": "Never"}}, "containers.0.imagePullPolicy", "Never"),
        ({"image": {"pullSecrets": [{"name": "pull"}]}}, "imagePullSecrets", [{"name": "pull"}]),
        ({"priorityClassName": "system-cluster-critical"}, "priorityClassName", "system-cluster-critical"),
        ({"nodeSelector": {"pool": "system"}}, "nodeSelector", {"pool": "system"}),
        ({"tolerations": [{"operator": "Exists"}]}, "tolerations", [{"operator": "Exists"}]),
        ({"affinity": {"nodeAffinity": {}}}, "affinity", {"nodeAffinity": {}}),
        ({"resources": {"limits": {"memory": "1Gi"}}}, "containers.0.resources.limits.memory", "1Gi"),
        ({"operator": {"port": 9090}}, "containers.0.ports.0.containerPort", 9090),
        ({"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy"}]}, "containers.0.env.-1", {"name": "HTTPS_PROXY", "value": "http://proxy"}),
        ({"serviceAccount": {"create": False, "name": "there"}}, "serviceAccountName", "there"),
    ],
)  # fmt: skip
def test_a_value_arrives_in_the_operators_pod(helm: Helm, values: Values, path: str, expected: object) -> None:
    assert at(pod(helm.render(values)), path) == expected


def test_a_platform_that_picks_the_user_may_take_it_out(helm: Helm) -> None:
    context = pod(helm.render({"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}))["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    for user, expected in ((None, None), (1000650000, 1000650000)):
        given = environment(helm.render({"runs": {"runAsUser": user}}))
        assert settings_from(given, default_identity="unused", default_namespace="unused").installation.run_as == expected


def test_names_stay_within_their_limits_for_the_longest_release_name(helm: Helm) -> None:
    rendered = helm.render(ALL, release="r" * 53)
    assert all(len(manifest["metadata"]["name"]) <= 63 for manifest in rendered)
    names = [(manifest["kind"], manifest["metadata"].get("namespace"), manifest["metadata"]["name"]) for manifest in rendered]
    assert len(names) == len(set(names))


def test_common_labels_stand_on_every_object(helm: Helm) -> None:
    assert [m["metadata"]["name"] for m in helm.render(ALL) if m["metadata"]["labels"].get("team") != "platform"] == []


@MODES
def test_the_notes_name_the_mode_and_the_next_commands(helm: Helm, values: Values) -> None:
    said = helm(
        "install", "rlhf", str(CHART), "--namespace", "rlhf-system", "--dry-run=client", "--hide-notes=false", values=values
    )
    notes = said.partition("NOTES:")[2]
    assert ("team-a, team-b" if values is NAMESPACED else "every namespace") in notes
    assert "kubectl -n rlhf-system rollout status deployment/rlhf-rlhf-operator" in notes
    assert "delete crd rlhfruns.rlhf.dev" in notes


def pods_of(manifests: list[Manifest]) -> Iterator[Manifest]:
    """The specs of all pods that come of them."""
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            yield manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "Pod":
            yield manifest["spec"]


def pod(manifests: list[Manifest]) -> Manifest:
    """The operator's."""
    spec: Manifest = the(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def environment(manifests: list[Manifest]) -> dict[str, str]:
    """Of the operator's container; what the kubelet fills in stands as a word."""
    return {entry["name"]: entry.get("value", "filled-in") for entry in pod(manifests)["containers"][0]["env"]}


def at(tree: Any, path: str) -> object:
    for step in path.split("."):
        tree = tree[int(step)] if isinstance(tree, list) else tree[step]
    return tree
