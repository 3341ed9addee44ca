"""A release of the chart on the test cluster, and its operator as a process here: nobody runs pods there.

The process has the variables that the Deployment gives its container, and a token of the Deployment's ServiceAccount.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.handle import Cluster
from support.helm import CHART, Helm, Manifest, Values
from support.operator_process import OperatorProcess

_PREFIX = "RLHF_OPERATOR_"


@dataclass(frozen=True)
class Installed:
    cluster: Cluster
    helm: Helm
    release: str
    namespace: str

    @property
    def service_account(self) -> str:
        return str(self._pod_spec["serviceAccountName"])

    def kubeconfig(self, folder: Path) -> Path:
        """With a token of the operator's ServiceAccount, and of nobody else."""
        return self.cluster.kubeconfig_of(self.namespace, self.service_account, folder)

    def operator(self, folder: Path, *namespaces: str) -> OperatorProcess:
        """What the Deployment would run, not started yet; on this machine it takes a port that is free."""
        settings = {name.removeprefix(_PREFIX): value for name, value in self.environment.items() if name.startswith(_PREFIX)}
        here = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": "0"}
        return OperatorProcess(folder, self.kubeconfig(folder), namespaces or [self.namespace], **{**settings, **here})

    @property
    def environment(self) -> dict[str, str]:
        """Of the operator's container, as a kubelet fills it in."""
        fields = {"metadata.namespace": self.namespace, "metadata.name": f"{self.release}-pod", "metadata.uid": "0f0e"}
        found: dict[str, str] = {}
        for entry in self._pod_spec["containers"][0]["env"]:
            value = fields[entry["valueFrom"]["fieldRef"]["fieldPath"]] if "valueFrom" in entry else entry.get("value", "")
            found[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], value)
        return found

    def run_helm_test(self, operator: str) -> str:
        """The program of the pod of `helm test`, against the operator at this URL. Raises CalledProcessError."""
        hook = yaml.safe_load(self.helm("get", "hooks", self.release, "-n", self.namespace))
        (container,) = hook["spec"]["containers"]
        (variable,) = container["env"]
        assert container["command"] == ["python", "-c"]
        done = subprocess.run(
            [sys.executable, "-c", *container["args"]],
            env={variable["name"]: operator},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    @property
    def _pod_spec(self) -> Manifest:
        selector = f"app.kubernetes.io/instance={self.release}"
        (deployment,) = self.cluster.api.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments", labelSelector=selector)[
            "items"
        ]
        spec: Manifest = deployment["spec"]["template"]["spec"]
        return spec


@contextmanager
def installed(cluster: Cluster, helm: Helm, namespace: str, values: Values, release: str = "rlhf-operator") -> Iterator[Installed]:
    """Uninstalled afterwards."""
    helm("install", release, str(CHART), "--namespace", namespace, values=values)
    try:
        yield Installed(cluster, helm, release, namespace)
    finally:
        helm("uninstall", release, "--namespace", namespace)
