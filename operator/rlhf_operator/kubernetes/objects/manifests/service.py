"""The headless Service by which the pods of a gang find their master before any of them is ready."""

from __future__ import annotations

from typing import Any

from rlhf_api.resource.run import RLHFRun
from rlhf_operator.core.actions import CreateService
from rlhf_operator.kubernetes.objects.labels import run_labels

from .metadata import child_metadata

#: The label that the Job controller gives its pods.
_JOB_NAME = "batch.kubernetes.io/job-name"
MASTER_PORT = 29500


def service(run: RLHFRun, action: CreateService) -> dict[str, Any]:
    """It has the Job's name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(run, action.name, run_labels(run.metadata)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {**run_labels(run.metadata), _JOB_NAME: action.name},
            "ports": [{"name": "rendezvous", "port": MASTER_PORT, "targetPort": MASTER_PORT, "protocol": "TCP"}],
        },
    }
