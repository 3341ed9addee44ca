"""The image and the chart on a real node, as a platform team installs them; and a run there, watched from outside."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.handle import RESTRICTED
from cluster.node_handle import NodeCluster
from image import builder
from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus, StageStatus
from rlhf_api.resource.storage import Storage, StorageCredentials
from rlhf_api.stage import RunRef
from rlhf_api.words import Phase
from rlhf_operator.core.jobs.names import attempt_of
from rlhf_store import Store, logs_folder, open_store
from support import node_run
from support.documents import ROOT
from support.helm import Helm
from support.mini import stages_of
from support.operated_runs import ClusterRun
from support.rlhfctl import process
from support.s3 import ACCESS_KEY, SECRET_KEY
from support.transcript import Transcript
from support.waiting import wait_until

Json = dict[str, Any]
SECRET = "store-keys"
_RELEASE = "rlhf"


@dataclass(frozen=True)
class Installation:
    """The operator works on the runs of `runs`, and its pod is in `home`; both namespaces enforce Pod Security's `restricted`."""

    cluster: NodeCluster
    terminal: Transcript
    home: str
    runs: str
    operator_logs: list[str] = field(default_factory=list)
    """Of those that were killed, up to then."""

    @property
    def deployment(self) -> str:
        return f"{_RELEASE}-rlhf-operator"

    def operator_pods(self) -> list[Json]:
        path = f"/api/v1/namespaces/{self.home}/pods"
        items: list[Json] = self.cluster.api.get(path, labelSelector=f"app.kubernetes.io/instance={_RELEASE}")["items"]
        return items

    def keep_operator_log(self) -> None:
        self.operator_logs.append(self.cluster.kubectl("-n", self.home, "logs", f"deployment/{self.deployment}"))

    def kill_operator(self) -> bool:
        """Its pod, without any grace. False: there is none that runs."""
        running = [pod for pod in self.operator_pods() if pod["status"].get("phase") == "Running"]
        for pod in running:
            self.keep_operator_log()
            self.cluster.api.delete(f"/api/v1/namespaces/{self.home}/pods/{pod['metadata']['name']}", gracePeriodSeconds=0)
        return bool(running)

    def prepare(self, name: str, folder: Path, **changes: Any) -> RunOnNode:
        """A run in a part of the store that is its own; what it reads is there. `changes` are of its spec."""
        storage = self.cluster.s3.storage()
        credentials = StorageCredentials.model_validate({"secretRef": {"name": SECRET}})
        there = storage.model_copy(update={"credentials": credentials})
        manifest = node_run.manifest(name, folder / "world", seen_here=storage, seen_there=there, **changes)
        return RunOnNode(self, ClusterRun(self.cluster, self.runs, name), manifest, storage)


@dataclass(frozen=True)
class RunOnNode:
    installation: Installation
    run: ClusterRun
    manifest: Json
    storage: Storage

    def apply(self) -> None:
        """`manifest`, as it is now."""
        self.installation.cluster.apply(self.manifest, namespace=self.installation.runs)

    @property
    def status(self) -> RLHFRunStatus:
        """Once the operator has written one."""
        status = RLHFRun.model_validate(self.run.resource).status
        assert status is not None, "the run has no status"
        return status

    @property
    def phase(self) -> Phase:
        return self.status.phase if self.run.status else Phase.PENDING

    @property
    def stages(self) -> dict[str, StageStatus]:
        """By name and iteration: `sft-0`, `train-1`."""
        return stages_of(self.status) if self.run.status else {}

    def delete(self) -> None:
        """Returns when it is gone."""
        self.run.delete()
        wait_until(lambda: self.run.find() is None, f"run {self.run.name} to be gone", seconds=120, every=0.5)

    def until_finished(self, seconds: float) -> None:
        wait_until(lambda: self.phase.finished, f"the end of run {self.run.name}", seconds=seconds, every=0.5)

    @property
    def store(self) -> Store:
        return open_store(self.storage)

    def logs(self, stage: str) -> str:
        """All that the store keeps of what the pods of `train-1` have said; not those of a run of this name that was deleted."""
        folder = logs_folder(RunRef(namespace=self.run.namespace, name=self.run.name, uid=self.run.uid))
        keys = sorted(entry.key for entry in self.store.list(f"{folder}/{stage}-"))
        return "\n".join(self.store.get(key).decode(errors="replace") for key in keys)

    def training_metrics(self, stage: str) -> list[Json]:
        """Of each step, in the order in which they were taken."""
        artifact = self.stages[stage].artifact
        assert artifact is not None, f"{stage} has no artifact"
        folder = artifact.url.removeprefix(f"{self.storage.url}/")
        (key,) = (entry.key for entry in self.store.list(f"{folder}/") if entry.key.endswith("/metrics.jsonl"))
        return [json.loads(line) for line in self.store.get(key).decode().splitlines()]

    def pods_made(self) -> Counter[str]:
        """By stage, as the Events of Jobs tell of them; those that look an artifact up for the stage count too."""
        path = f"/api/v1/namespaces/{self.run.namespace}/events"
        made: Counter[str] = Counter()
        for event in self.installation.cluster.api.get(path, fieldSelector="involvedObject.kind=Job,reason=SuccessfulCreate")[
            "items"
        ]:
            job = event["involvedObject"]["name"]
            found = attempt_of(job)
            if found is not None and job.startswith(f"{self.run.name}-i"):
                made[f"{found[1]}-{found[0] or 0}"] += event.get("count", 1)
        return made

    def told(self) -> dict[str, str]:
        """All that the operator, the stages and rlhfctl have said of it: objects, Events, logs, results, the report."""
        cluster, here = self.installation.cluster, ("-n", self.run.namespace)
        kinds = "rlhfruns,jobs,pods,configmaps,events,services,networkpolicies"
        texts = {"objects": cluster.kubectl(*here, "get", kinds, "-o", "json")}
        self.installation.keep_operator_log()
        texts["operator"] = "".join(self.installation.operator_logs)
        report = self.installation.terminal.folder / f"{self.run.name}.html"
        process("report", self.run.name, *here, "--output", str(report), env=cluster.environment)
        texts["report"] = report.read_text()
        store = self.store
        return texts | {entry.key: store.get(entry.key).decode(errors="replace") for entry in store.list("runs/")}

    def manifests_put(self) -> list[str]:
        """The key of every artifact that was sealed, once for each time."""
        return self.installation.cluster.s3.manifests_put(self.storage)


@contextmanager
def installed(cluster: NodeCluster, folder: Path) -> Iterator[Installation]:
    """The image of this checkout, imported; the chart of this checkout, installed and ready."""
    with builder.built() as tag:
        if tag not in cluster.images():
            _import(cluster, tag, folder / "image")
    repository, _, version = tag.rpartition(":")
    helm = Helm(folder / "helm", cluster.kubeconfig)
    terminal = Transcript(folder, {**helm.environment(), **cluster.environment}, cluster.layout.bin)
    (folder / "charts").symlink_to(ROOT / "charts")
    (folder / "keys.env").write_text(f"AWS_ACCESS_KEY_ID={ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY={SECRET_KEY}\n")
    with cluster.namespace(RESTRICTED, "rlhf-system") as home, cluster.namespace(RESTRICTED, "research") as runs:
        terminal.names[version] = "0.1.0-cpu"
        values = {
            "image": {"repository": repository, "tag": version, "pullPolicy": "Never"},
            "runs": {"imagePullPolicy": "Never"},
            "watch": {"namespaces": [runs]},
        }
        terminal.tell("## Install\n\nBoth namespaces admit only pods of the Pod Security Standard `restricted`.")
        terminal.type(f"kubectl get namespace {home} {runs} -L pod-security.kubernetes.io/enforce")
        terminal.show_file("values.yaml", yaml.safe_dump(values, sort_keys=False))
        # An earlier release's CRD stays; this one's takes its place.
        take_over = "--take-ownership --force-conflicts"
        install = f"helm install {_RELEASE} charts/rlhf-operator --namespace {home} --values values.yaml --wait --timeout 5m"
        try:
            terminal.type(f"{install} {take_over}")
            terminal.type(f"kubectl -n {home} get pods")
            terminal.type(f"kubectl -n {runs} create secret generic {SECRET} --from-env-file keys.env")
            yield Installation(cluster, terminal, home, runs)
        finally:
            helm("uninstall", _RELEASE, "-n", home, "--ignore-not-found", "--wait", "--timeout=2m")


def _import(cluster: NodeCluster, tag: str, pipe: Path) -> None:
    """Through a pipe: an archive would be one more copy of 7 GB."""
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        imported = pool.submit(cluster.import_image, pipe)
        try:
            builder.save(tag, pipe)
        except BaseException:
            _end(pipe, imported)
            raise
        imported.result()
    pipe.unlink()


def _end(pipe: Path, reader: Future[None]) -> None:
    """Who opens a pipe to read waits for somebody who writes, and nobody may have come to it."""
    while not reader.done():
        with suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        time.sleep(0.1)
