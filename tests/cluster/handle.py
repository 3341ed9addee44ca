"""What a test has of the cluster: `cluster` (fixtures.py) is one of these, for the whole session."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cluster import kwok
from cluster.api import Api, ApiError, Json
from cluster.errors import KubectlError, NotHere
from cluster.layout import Layout
from cluster.processes import Component
from cluster.readiness import api_is_ready, node_is_ready, wait_for
from support.binaries import program
from support.waiting import wait_until

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
#: Of `kubectl`; of what waits for a condition, the caller says.
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Request:
    """One line of the API server's audit log."""

    verb: str
    """get, list, watch, create, update, patch, delete, deletecollection."""
    resource: str
    """`jobs`, `rlhfruns/status`, …"""
    namespace: str
    name: str
    user: str
    agent: str
    status: int


class Binaries:
    """The pinned programs beside it; each is built when it is first asked for."""

    @property
    def kubectl(self) -> Path:
        return program("kubectl")

    @property
    def helm(self) -> Path:
        return program("helm")


class Cluster:
    """One API server with simulated nodes. `layout` is what of it runs on this machine."""

    def __init__(self, layout: Layout, kubeconfig: Path) -> None:
        self.layout = layout
        self.kubeconfig = kubeconfig
        self.api = Api(kubeconfig)
        self.binaries = Binaries()

    @property
    def ours(self) -> bool:
        """Its control plane was started here; else KUBECONFIG names a cluster of somebody else."""
        return self.kubeconfig == self.layout.admin

    @property
    def environment(self) -> dict[str, str]:
        """For a program that finds its cluster as kubectl does; it must read nothing of the machine's own configuration."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.layout.folder)}

    # --- objects ---

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002 - as subprocess calls it
        """What it prints. KubectlError where it answers with another exit code than 0."""
        done = subprocess.run(
            [self.binaries.kubectl, *arguments],
            env=self.environment,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise KubectlError(arguments, done.stderr)
        return done.stdout

    def apply(self, *manifests: Json, namespace: str | None = None) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", *(["-n", namespace] if namespace else []), input=json.dumps(items))

    @contextmanager
    def namespace(self, labels: Mapping[str, str] | None = None, name: str | None = None) -> Iterator[str]:
        """A fresh one, in which pods can be made at once; restricted Pod Security, unless `labels` say otherwise.

        It is removed afterwards with everything in it, in the background. One of the same name that is going is waited for.
        """
        name = name or f"test-{secrets.token_hex(4)}"
        wait_until(
            lambda: self.api.find(f"/api/v1/namespaces/{name}") is None, f"the former namespace {name} to be gone", seconds=120
        )
        labels = dict(RESTRICTED if labels is None else labels)
        self.api.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        # Both are made by controllers, and mounted into every pod.
        for needed in ("serviceaccounts/default", "configmaps/kube-root-ca.crt"):
            path = f"/api/v1/namespaces/{name}/{needed}"
            wait_until(lambda path=path: self.api.find(path), f"{needed} of namespace {name}")  # type: ignore[misc]
        try:
            yield name
        finally:
            with suppress(OSError, ApiError):
                # Nobody may be there any more to end the pods that a player played.
                for pod in self.api.get(f"/api/v1/namespaces/{name}/pods")["items"]:
                    self.api.delete(f"/api/v1/namespaces/{name}/pods/{pod['metadata']['name']}", gracePeriodSeconds=0)
                self.api.delete(f"/api/v1/namespaces/{name}")

    @contextmanager
    def node(self, name: str | None = None, **shape: object) -> Iterator[str]:
        """One simulated node more, as kwok.node describes it; its pods go with it."""
        name = name or f"node-{secrets.token_hex(4)}"
        self.api.post("/api/v1/nodes", kwok.node(name, **shape))  # type: ignore[arg-type]
        try:
            wait_until(lambda: node_is_ready(self.api, name), f"node {name}")
            yield name
        finally:
            with suppress(OSError, ApiError):
                self.api.delete(f"/api/v1/nodes/{name}")

    def write_log(self, namespace: str, pod: str, text: str, *, ended: bool = False) -> None:
        """Append to what `kubectl logs` shows of a pod; `ended`: it is whole, and followers are done."""
        folder = self.layout.pods / namespace
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{pod}.log").open("a") as log:
            log.write(text)
        if ended:
            (folder / f"{pod}.ended").touch()

    # --- who asks ---

    def kubeconfig_of(self, namespace: str, service_account: str, folder: Path) -> Path:
        """A kubeconfig with a token of this ServiceAccount, which may do what RBAC lets it do and nothing else."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        token = self.api.post(path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})
        admin = json.loads(self.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
        admin["users"] = [{"name": service_account, "user": {"token": token["status"]["token"]}}]
        admin["contexts"][0]["context"] |= {"user": service_account, "namespace": namespace}
        file = folder / f"{namespace}-{service_account}.conf"
        file.touch(mode=0o600)
        file.write_text(json.dumps(admin))
        return file

    def requests(self) -> list[Request]:
        """Every request that the API server has answered so far, but for those of the cluster itself."""
        lines = self._own("the audit log").audit.read_text().splitlines()
        return [_request(json.loads(line)) for line in lines]

    # --- its programs ---

    def component(self, name: str) -> Component:
        """`kube-apiserver`, `etcd`, `kube-controller-manager`, `kube-scheduler`, `kwok`: to stop, kill, silence and restart it."""
        return self._own(f"the component {name}").component(name)

    def restart(self, name: str) -> None:
        """The same program again on the same data; back when the API server answers."""
        component = self.component(name)
        component.restart()
        wait_for(component, self.is_ready)

    def wait_ready(self) -> None:
        """After something that took the API server away."""
        wait_until(self.is_ready, f"the API server at {self.api.server.geturl()}", seconds=120)

    def is_ready(self) -> bool:
        return api_is_ready(self.api)

    def _own(self, what: str) -> Layout:
        if not self.ours:
            raise NotHere(
                f"{what} cannot be had of the cluster that KUBECONFIG names; unset KUBECONFIG, and the tests start their own"
            )
        return self.layout


def _request(line: Json) -> Request:
    target = line.get("objectRef", {})
    resource = target.get("resource", "")
    return Request(
        verb=line["verb"],
        resource=f"{resource}/{target['subresource']}" if "subresource" in target else resource,
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        # A request that was turned away before anybody looked who asks has none.
        user=line.get("user", {}).get("username", ""),
        agent=line.get("userAgent", ""),
        status=line.get("responseStatus", {}).get("code", 0),
    )
