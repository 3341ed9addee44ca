"""The pod of a stage: one hardened container, which Pod Security's `restricted` admits."""

from __future__ import annotations

from rlhf_api.resource.compute import Pod, Resources
from rlhf_api.resource.run import RLHFRun
from rlhf_api.words import StageName
from rlhf_operator.core.actions import CreateJob, Topology
from rlhf_operator.core.jobs.execution import CPU_STAGES
from rlhf_operator.kubernetes.api.resources import Json
from rlhf_operator.kubernetes.installation import Installation
from rlhf_operator.kubernetes.objects.labels import STAGE_CONTAINER

from .environment import environment
from .volumes import CONFIG_PATH, mounts, volumes

_GRACE_SECONDS = 600
#: Of CPU stages, whose pod no section of a manifest shapes: they hold the tokenizers and the prompts in memory.
_CPU_REQUESTS = {"cpu": "500m", "memory": "1Gi"}
_CPU_MEMORY_LIMIT = "4Gi"


def pod_spec(run: RLHFRun, action: CreateJob, installation: Installation) -> Json:
    pod = action.pod
    grace = pod.termination_grace_period_seconds
    spec: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS if grace is None else grace,
        "securityContext": _pod_security(installation),
        "containers": [_container(run, action, installation)],
        "volumes": volumes(run, action),
        **_placement(pod),
    }
    if action.shape.topology is Topology.GANG:
        spec["subdomain"] = action.name
    credentials = run.spec.storage.credentials
    if credentials is not None and credentials.service_account_name is not None:
        spec["serviceAccountName"] = credentials.service_account_name
    if run.spec.image_pull_secrets:
        spec["imagePullSecrets"] = [secret.to_wire() for secret in run.spec.image_pull_secrets]
    return spec


def _container(run: RLHFRun, action: CreateJob, installation: Installation) -> Json:
    policy = run.spec.image_pull_policy or installation.image_pull_policy
    container: Json = {
        "name": STAGE_CONTAINER,
        "image": action.image or installation.image,
        "command": ["python", "-m", "rlhf_trainer", action.config.stage.value, "--config", CONFIG_PATH],
        "env": environment(run, action),
        "resources": _resources(action.config.stage, action.pod),
        "volumeMounts": mounts(action.pod),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return container | ({"imagePullPolicy": str(policy)} if policy else {})


def _pod_security(installation: Installation) -> Json:
    context: Json = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if installation.run_as is not None:
        identity = {"runAsUser": installation.run_as, "runAsGroup": installation.run_as, "fsGroup": installation.run_as}
        # Without the policy a volume with a million files is walked through at each start.
        context |= {**identity, "fsGroupChangePolicy": "OnRootMismatch"}
    return context


def _placement(pod: Pod) -> Json:
    """The manifest's own fields that Kubernetes has under the same names."""
    fields = ("node_selector", "tolerations", "affinity", "priority_class_name", "runtime_class_name")
    wire = Pod.model_validate({name: getattr(pod, name) for name in fields}).to_wire()
    return {name: value for name, value in wire.items() if value}


def _resources(stage: StageName, pod: Pod) -> Json:
    given = pod.resources or Resources()
    limits, requests = dict(given.limits), dict(given.requests)
    if stage in CPU_STAGES:
        if "memory" not in limits | requests:
            limits["memory"] = _CPU_MEMORY_LIMIT
            requests["memory"] = _CPU_REQUESTS["memory"]
        if "cpu" not in limits | requests:
            requests["cpu"] = _CPU_REQUESTS["cpu"]
    resources = {"limits": limits, "requests": requests}
    return {name: {key: str(amount) for key, amount in amounts.items()} for name, amounts in resources.items() if amounts}
