"""The permissions that the operator says it needs (the table in app.py), as a set and as Roles of a ServiceAccount."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.handle import Cluster
from rlhf_operator.kubernetes import app


@dataclass(frozen=True)
class Permission:
    group: str
    resource: str
    verbs: tuple[str, ...]


def permissions() -> list[Permission]:
    rows = [row for row in (app.__doc__ or "").splitlines() if row.startswith("|")][2:]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    return [Permission(group, resource, tuple(verbs.split())) for group, resource, verbs, _ in cells]


def grant(cluster: Cluster, namespace: str, account: str, folder: Path) -> Path:
    """The kubeconfig of a new ServiceAccount that may do in this namespace what the table says, and nothing else anywhere."""
    rules = [{"apiGroups": [entry.group], "resources": [entry.resource], "verbs": list(entry.verbs)} for entry in permissions()]
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": account}}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    role_ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}},
        {**rbac, "kind": "Role", "rules": rules},
        {**rbac, "kind": "RoleBinding", "roleRef": role_ref, "subjects": [subject]},
        namespace=namespace,
    )
    return cluster.kubeconfig_of(namespace, account, folder)
