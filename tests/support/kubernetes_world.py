"""A run in a namespace of the test cluster, seen through a KubernetesBackend; a player plays its pods."""

from __future__ import annotations

from typing import Any

from cluster.handle import Cluster as Handle
from rlhf_api.resource.run import RLHFRun
from rlhf_operator.clock import SystemClock
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.resources import JOBS, PODS, RUNS, Json
from rlhf_operator.kubernetes.controller.backend import KubernetesBackend
from rlhf_operator.kubernetes.installation import Installation
from rlhf_operator.kubernetes.objects.keys import Kind, RunKey
from rlhf_operator.kubernetes.watch.index import Index
from support import player
from support.runs import run_of, spec_of

IMAGE = "example.com/rlhf-operator:test"


def played(**changes: Any) -> RLHFRun:
    """A run whose pods are for a player."""
    defaults = {"annotations": player.ANNOTATIONS, **changes.pop("podDefaults", {})}
    return run_of(spec_of(podDefaults=defaults, **changes))


class KubernetesWorld:
    """One run, created in `namespace`; nothing acts on it but the test."""

    def __init__(self, cluster: Handle, namespace: str, run: RLHFRun, installation: Installation | None = None) -> None:
        self.namespace = namespace
        self.cluster = Cluster.connect(cluster.kubeconfig, namespace=namespace)
        self.key = RunKey(namespace, run.metadata.name)
        self.index = Index()
        self.installation = installation or Installation(image=IMAGE)
        metadata = {"name": run.metadata.name, "namespace": namespace, "labels": run.metadata.labels or {}}
        body: Json = {"apiVersion": run.api_version, "kind": run.kind, "metadata": metadata, "spec": run.spec.to_wire()}
        self.cluster.create(RUNS, namespace, body)
        self.backend = self.another_backend()

    def tell_index(self) -> None:
        """What the watches of a running operator would have told by now."""
        for kind, resource in ((Kind.RUN, RUNS), (Kind.JOB, JOBS), (Kind.POD, PODS)):
            mark = self.index.mark()
            listed = self.cluster.list(resource, self.namespace)
            self.index.replace(kind, listed, since=mark, namespace=self.namespace)

    def another_backend(self) -> KubernetesBackend:
        """As a restarted operator has it: nothing is remembered."""
        return KubernetesBackend(self.key, self.cluster, self.index, self.installation, SystemClock())
