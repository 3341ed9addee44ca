"""A service mesh's injection: every pod of a namespace gets a plain container beside its own, at admission."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cluster.api import Api, ApiError
from support.waiting import wait_until

SIDECAR = "mesh-proxy"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"


@contextmanager
def injected(
    api: Api, namespace: str, *, image: str = "example/mesh-proxy:1", arguments: list[str] | None = None
) -> Iterator[None]:
    """For as long as the context lasts. `arguments`: of the sidecar, where its image really runs."""
    name = f"mesh-{namespace}"
    policy = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name}}
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    policy["spec"] = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": rules},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": _expression(image, arguments or [])}}],
    }
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {**policy, "kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": name, "matchResources": selector}}
    kinds = {"mutatingadmissionpolicies": policy, "mutatingadmissionpolicybindings": binding}
    try:
        for kind, body in kinds.items():
            api.post(f"{_ADMISSION}/{kind}", body)
        wait_until(lambda: _is_injected(api, namespace), f"sidecars in namespace {namespace}", seconds=60)
        yield
    finally:
        for kind in kinds:
            with suppress(OSError, ApiError):
                api.delete(f"{_ADMISSION}/{kind}/{name}")


def _expression(image: str, arguments: list[str]) -> str:
    """CEL; the container is as restricted as the namespace demands."""
    context = "Object.spec.containers.securityContext"
    security = f'{context}{{allowPrivilegeEscalation: false, capabilities: {context}.capabilities{{drop: ["ALL"]}}}}'
    fields = (
        f'name: "{SIDECAR}", image: "{image}", imagePullPolicy: "IfNotPresent", args: {arguments!r}, securityContext: {security}'
    )
    return f'[JSONPatch{{op: "add", path: "/spec/containers/-", value: Object.spec.containers{{{fields}}}}}]'


def _is_injected(api: Api, namespace: str) -> bool:
    hardened = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    spec: dict[str, Any] = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "probe", "image": "probe", "securityContext": hardened}],
    }
    pod = {"metadata": {"name": "probe"}, "spec": spec}
    made = api.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod, query={"dryRun": "All"})
    return len(made["spec"]["containers"]) == 2
