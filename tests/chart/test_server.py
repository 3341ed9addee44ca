"""What a real API server says of the chart's objects, without making them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.errors import KubectlError
from cluster.handle import Cluster
from support.helm import Helm, Manifest, Values, of_kind

pytestmark = pytest.mark.cluster

#: Enforcement looks at pods; the warning, at what will make pods.
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
EVERYTHING: Values = {
    "image": {"pullSecrets": [{"name": "pull"}], "digest": f"sha256:{'a' * 64}"},
    "runs": {"allowedServiceAccounts": ["rlhf-s3"], "imagePullPolicy": "Always"},
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {}}],
        "apiServer": {"cidrs": ["10.0.0.1/32"]},
        "extraEgress": [{"ports": [{"port": 3128}]}],
    },
    "metrics": {"dashboard": {"enabled": True, "annotations": {"folder": "ml"}}, "service": {"annotations": {"a": "b"}}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy"}],
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "commonLabels": {"team": "platform"},
}  # fmt: skip


@pytest.fixture
def restricted(cluster: Cluster) -> object:
    with cluster.namespace(RESTRICTED) as name:
        yield name


@pytest.mark.parametrize("mode", ["cluster", "namespaced"])
@pytest.mark.parametrize("extra", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_every_object_is_accepted_without_a_warning(
    cluster: Cluster, helm: Helm, restricted: str, mode: str, extra: Values
) -> None:
    watch = {"watch": {"namespaces": [restricted]}} if mode == "namespaced" else {}
    rendered = helm.render({**extra, **watch}, namespace=restricted)
    assert ("ClusterRole" in {manifest["kind"] for manifest in rendered}) == (mode == "cluster")
    accepted = dry_run(cluster, rendered)
    assert len(accepted.splitlines()) == len(rendered)


def test_a_pod_that_restricted_pod_security_forbids_would_have_been_told(cluster: Cluster, helm: Helm, restricted: str) -> None:
    """So that the test above can fail."""
    rendered = helm.render({"podSecurityContext": {"runAsNonRoot": False}}, namespace=restricted)
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        dry_run(cluster, of_kind(rendered, "Pod"))
    with pytest.raises(KubectlError, match=r"would violate PodSecurity .*runAsNonRoot"):
        dry_run(cluster, of_kind(rendered, "Deployment"))


def test_the_service_monitor_is_one_of_the_prometheus_operator(cluster: Cluster, helm: Helm, tmp_path: Path) -> None:
    """Its CRD is not here: the server names what it lacks."""
    (monitor,) = of_kind(helm.render({"metrics": {"serviceMonitor": {"enabled": True}}}), "ServiceMonitor")
    with pytest.raises(KubectlError, match=r'no matches for kind "ServiceMonitor" in version "monitoring.coreos.com/v1"'):
        dry_run(cluster, [monitor])


def dry_run(cluster: Cluster, manifests: list[Manifest]) -> str:
    """As Helm applies them: unknown fields are errors, and so is a warning here."""
    items = {"apiVersion": "v1", "kind": "List", "items": manifests}
    return cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-",
        input=json.dumps(items),
    )  # fmt: skip
