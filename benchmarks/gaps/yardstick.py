"""The requests of one stage by a client that does nothing else."""

from __future__ import annotations

import time

from cluster.handle import Cluster

from .watched import JOBS, RUN_LABEL, RUNS, Json

_JOB_OWN = ("controller-uid", "job-name")


class Yardstick:
    """The requests of one stage, up to its Job. Read is a run at work; written is in a namespace that no operator watches. Its Job
    is suspended, so that nobody makes pods of it.
    """

    def __init__(self, cluster: Cluster, namespace: str, beside: str) -> None:
        self._api = cluster.api
        self._namespace, self._beside = namespace, beside
        job = next(
            found for found in self._api.get(JOBS.format(namespace))["items"] if RUN_LABEL in found["metadata"].get("labels", {})
        )
        self._run = job["metadata"]["labels"][RUN_LABEL]
        self._job = _copy(job)
        self._job["spec"] = {**job["spec"], "suspend": True}
        del self._job["spec"]["selector"]
        labels = self._job["spec"]["template"]["metadata"]["labels"]
        self._job["spec"]["template"]["metadata"]["labels"] = {
            name: value for name, value in labels.items() if name.rpartition("/")[2] not in _JOB_OWN
        }
        self._config_map = _copy(self._api.get(f"/api/v1/namespaces/{namespace}/configmaps/{job['metadata']['name']}"))
        policy = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
        policies = self._api.get(policy, labelSelector=f"{RUN_LABEL}={self._run}")["items"]
        self._policy = _copy(policies[0]) if policies else None
        source = self._api.get(f"{RUNS.format(namespace)}/{self._run}")
        self._status = source["status"]
        self._api.post(RUNS.format(beside), _copy(source))
        if self._policy is not None:
            self._apply(f"/apis/networking.k8s.io/v1/namespaces/{beside}/networkpolicies", "NetworkPolicy", self._policy)
        self._count = 0
        self._once()
        self.found: list[float] = []

    def measure(self) -> None:
        begin = time.monotonic()
        self._once()
        self.found.append(time.monotonic() - begin)

    def _once(self) -> None:
        self._count += 1
        name, beside, mine = f"yardstick-{self._count}", self._beside, {"labelSelector": f"{RUN_LABEL}={self._run}"}
        run = self._api.get(f"{RUNS.format(self._namespace)}/{self._run}")
        self._api.get(JOBS.format(self._namespace), **mine)
        self._api.get(f"/api/v1/namespaces/{self._namespace}/pods", **mine)
        status = {**self._status, "message": name}
        self._apply(RUNS.format(beside), "RLHFRun", {"metadata": {"name": self._run}, "status": status}, "/status")
        about = {"kind": "RLHFRun", "namespace": beside, "name": self._run, "uid": run["metadata"]["uid"]}
        event = {"involvedObject": about, "type": "Normal", "reason": "Succeeded", "message": "a stage is done"}
        self._api.post(f"/api/v1/namespaces/{beside}/events", {**event, "metadata": {"name": name}})
        if self._policy is not None:
            self._apply(f"/apis/networking.k8s.io/v1/namespaces/{beside}/networkpolicies", "NetworkPolicy", self._policy)
        self._api.post(f"/api/v1/namespaces/{beside}/configmaps", _named(self._config_map, name))
        self._api.post(JOBS.format(beside), _named(self._job, name))

    def _apply(self, path: str, kind: str, body: Json, subresource: str = "") -> None:
        version = {"RLHFRun": "rlhf.dev/v1alpha1", "NetworkPolicy": "networking.k8s.io/v1"}[kind]
        self._api.request(
            "PATCH",
            f"{path}/{body['metadata']['name']}{subresource}",
            {"apiVersion": version, "kind": kind, **body},
            content_type="application/apply-patch+yaml",
            query={"fieldManager": "yardstick", "force": "true"},
        )


def _named(obj: Json, name: str) -> Json:
    return {**obj, "metadata": {**obj["metadata"], "name": name}}


def _copy(obj: Json) -> Json:
    """To be created in another namespace, by nobody's order."""
    metadata = {name: obj["metadata"][name] for name in ("name", "labels", "annotations") if name in obj["metadata"]}
    return {name: obj[name] for name in ("apiVersion", "kind", "spec", "data") if name in obj} | {"metadata": metadata}
