"""Runs on a cluster: made, looked at, waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.api import MERGE_PATCH
from cluster.handle import Cluster
from rlhf_api.words import API_VERSION, KIND
from support.runs import spec_of
from support.waiting import wait_until

Json = dict[str, Any]


def manifest(name: str, namespace: str, **changes: Any) -> Json:
    """A run that starts in no time and waits for nothing: two iterations, no back-off; `changes` are fields of spec."""
    changes.setdefault("retry", {"backoffSeconds": 0})
    changes.setdefault("storage", {"url": f"s3://bucket/{namespace}/{name}"})
    spec = spec_of(**changes).to_wire()
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def planned(plan: str, attempts: int = 1_000_000, takes: str | None = None) -> Json:
    """`pod` of a stage whose pods do this (tests/cluster/stages.py), up to this attempt."""
    annotations = {"test.rlhf.dev/plan": plan, "test.rlhf.dev/attempts": str(attempts)}
    return {"annotations": annotations | ({"test.rlhf.dev/takes": takes} if takes else {})}


class ClusterRun:
    """One run and its children, as the API server has them."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._api = cluster.api
        self.namespace = namespace
        self.name = name
        self._path = f"/apis/rlhf.dev/v1alpha1/namespaces/{namespace}/rlhfruns"

    def create(self, **changes: Any) -> ClusterRun:
        self._api.post(self._path, manifest(self.name, self.namespace, **changes))
        return self

    def patch(self, **spec: Any) -> None:
        self._api.patch(f"{self._path}/{self.name}", {"spec": spec}, MERGE_PATCH)

    def delete(self) -> None:
        self._api.delete(f"{self._path}/{self.name}")

    def find(self) -> Json | None:
        return self._api.find(f"{self._path}/{self.name}")

    @property
    def resource(self) -> Json:
        return self._api.get(f"{self._path}/{self.name}")

    @property
    def uid(self) -> str:
        return str(self.resource["metadata"]["uid"])

    @property
    def status(self) -> Json:
        return dict(self.resource.get("status") or {})

    def until(self, what: str, condition: Callable[[Json], object], seconds: float = 90.0) -> Json:
        """The status for which `condition` holds first."""
        seen: Json = {}

        def met() -> bool:
            seen.clear()
            seen.update(self.status)
            return bool(condition(seen))

        try:
            wait_until(met, f"{self.name}: {what}", seconds=seconds, every=0.1)
        except AssertionError as error:
            words = [event["message"] for event in self.events()]
            raise AssertionError(f"{error}; it is {seen.get('phase')}: {seen.get('message')}; told: {words}") from None
        return seen

    def until_phase(self, phase: str, seconds: float = 90.0) -> Json:
        return self.until(f"phase {phase}", lambda status: status.get("phase") == phase, seconds)

    def until_stage(self, stage: str) -> Json:
        return self.until(f"stage {stage}", lambda status: status.get("stage") == stage)

    def jobs(self) -> list[Json]:
        return self._labelled("/apis/batch/v1", "jobs")

    def pods(self) -> list[Json]:
        return self._labelled("/api/v1", "pods")

    def children(self) -> list[Json]:
        return [
            obj
            for root, plural in (
                ("/apis/batch/v1", "jobs"),
                ("/api/v1", "pods"),
                ("/api/v1", "services"),
                ("/api/v1", "configmaps"),
                ("/apis/networking.k8s.io/v1", "networkpolicies"),
            )
            for obj in self._labelled(root, plural)
        ]

    def events(self) -> list[Json]:
        """Of the run, in the order in which they were told."""
        found = self._api.get(f"/api/v1/namespaces/{self.namespace}/events", fieldSelector=f"involvedObject.name={self.name}")[
            "items"
        ]
        return sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))

    def attempts(self) -> list[tuple[int, str, int]]:
        """(iteration, stage, attempt) of its Jobs, in the order in which they were made."""
        jobs = sorted(self.jobs(), key=lambda job: (job["metadata"]["creationTimestamp"], job["metadata"]["name"]))
        labels = [job["metadata"]["labels"] for job in jobs]
        return [(int(of["rlhf.dev/iteration"]), of["rlhf.dev/stage"], int(of["rlhf.dev/attempt"])) for of in labels]

    def condition(self, kind: str) -> Json:
        return next(found for found in self.status["conditions"] if found["type"] == kind)

    def stage(self, iteration: int | None, name: str) -> Json:
        status = self.status
        stages = status["stages"] if iteration is None else status["iterations"][iteration - 1]["stages"]
        return next(stage for stage in stages if stage["name"] == name)

    def _labelled(self, root: str, plural: str) -> list[Json]:
        path = f"{root}/namespaces/{self.namespace}/{plural}"
        return list(self._api.get(path, labelSelector=f"rlhf.dev/run={self.name}")["items"])
