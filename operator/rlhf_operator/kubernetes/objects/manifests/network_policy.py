"""Only pods of the run reach pods of the run: torch's store and NCCL ask nobody for a password."""

from __future__ import annotations

from typing import Any

from rlhf_api.resource.run import RLHFRun
from rlhf_operator.core.actions import CreateNetworkPolicy
from rlhf_operator.kubernetes.objects.labels import run_labels

from .metadata import child_metadata


def network_policy(run: RLHFRun, action: CreateNetworkPolicy) -> dict[str, Any]:
    """Egress stays open: stores and hubs are anywhere."""
    pods = {"matchLabels": run_labels(run.metadata)}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": child_metadata(run, action.name, run_labels(run.metadata)),
        "spec": {"podSelector": pods, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": pods}]}]},
    }
