"""Runs in the test cluster by hand: a status as an operator would write it, pods that a test starts and ends, and rlhfctl."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.api import MERGE_PATCH, Json
from cluster.handle import Cluster
from cluster.stages import PLAN, PLAYED
from rlhf_api import RLHFRun
from rlhf_api.words import API_VERSION, KIND, StageName
from rlhf_operator.kubernetes.objects.labels import COMPLETION_INDEX, INDEX_FAILURES, STAGE_CONTAINER, attempt_labels
from support import example_runs
from support.rlhfctl import Done, environment, rlhfctl
from support.waiting import wait_until

STORE = "s3://models/run"
Make = Callable[[str, str], RLHFRun]


@dataclass(frozen=True)
class ClusterRuns:
    """The runs of one namespace. `run` is rlhfctl with that namespace in its kubeconfig's context."""

    cluster: Cluster
    namespace: str
    folder: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, with the test's namespace in its context."""
        file = self.folder / "kubeconfig"
        if not file.exists():
            content = yaml.safe_load(self.cluster.kubeconfig.read_text())
            for context in content["contexts"]:
                context["context"]["namespace"] = self.namespace
            file.touch(mode=0o600)
            file.write_text(yaml.safe_dump(content))
        return file

    @property
    def env(self) -> dict[str, str]:
        return {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)}

    def rlhfctl(self, *arguments: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> Done:
        return rlhfctl(*arguments, cwd=self.folder, env={**self.env, **(env or {})}, stdin=stdin)

    def following(self, *arguments: str) -> Following:
        """rlhfctl as a process of its own, which goes on."""
        return Following(self.folder, self.env, arguments)

    # --- runs ---

    def manifest(self, name: str = "tiny", *, namespace: str | None = None, **changes: object) -> Path:
        path = self.folder / f"{name}.yaml"
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": example_runs.spec(STORE, **changes)}
        path.write_text(yaml.safe_dump(manifest, sort_keys=False))
        return path

    def create(self, make: Make | None = None, name: str = "tiny", **changes: object) -> Json:
        """A run with the status that `make` gives it."""
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": example_runs.spec(STORE, **changes)}
        if make is not None:
            # What a paused run waits for stands in its spec.
            body["spec"] = make(name, STORE).to_wire()["spec"] | changes
        run = self.cluster.api.post(self._path(), body)
        return self.set_status(make(name, STORE).to_wire()["status"], name) if make is not None else run

    def set_status(self, status: Mapping[str, Any], name: str = "tiny") -> Json:
        return self.cluster.api.patch(f"{self._path(name)}/status", {"status": dict(status)}, MERGE_PATCH)

    def get(self, name: str = "tiny") -> Json:
        return self.cluster.api.get(self._path(name))

    def find(self, name: str = "tiny") -> Json | None:
        return self.cluster.api.find(self._path(name))

    # --- pods ---

    def pod(
        self,
        stage: str,
        *,
        run: str = "tiny",
        iteration: int | None = None,
        attempt: int = 1,
        index: int | None = None,
        failed_before: int = 0,
        log: str = "",
        node: str | None = None,
    ) -> str:
        """A pod of a stage that waits to be started, with what it will have written; returns its name."""
        owner = RLHFRun.model_validate({**self.get(run), "metadata": self._meta(run)})
        shard = "" if index is None else f"-{index}"
        name = f"{run}-i{iteration or 0}-{stage}-{attempt}{shard}-abcde"
        indexed = {COMPLETION_INDEX: str(index), INDEX_FAILURES: str(failed_before)}
        annotations = {PLAN: PLAYED} | ({} if index is None else indexed)
        container = {
            "name": STAGE_CONTAINER,
            "image": "stage",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        self.cluster.write_log(self.namespace, name, log)
        labels = attempt_labels(owner, iteration, StageName(stage), attempt, StageName(stage))
        self.cluster.api.post(
            f"/api/v1/namespaces/{self.namespace}/pods",
            {
                "metadata": {"name": name, "labels": labels, "annotations": annotations},
                "spec": {
                    "restartPolicy": "Never",
                    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [container],
                    **({"nodeName": node} if node else {}),
                },
            },
        )
        wait_until(lambda: self._pod(name)["spec"].get("nodeName"), f"a node for pod {name}")
        return name

    def start(self, pod: str) -> None:
        self.set_pod(pod, "Running", {"running": {"startedAt": "2026-03-01T00:00:00Z"}})

    def end(self, pod: str) -> None:
        """Its log is whole, and its container has ended well."""
        self.cluster.write_log(self.namespace, pod, "", ended=True)
        self.set_pod(pod, "Succeeded", {"terminated": {"exitCode": 0, "reason": "Completed"}})

    def remove(self, pod: str) -> None:
        self.cluster.api.delete(f"/api/v1/namespaces/{self.namespace}/pods/{pod}", gracePeriodSeconds=0)

    def event(self, kind: str, name: str, reason: str, message: str, *, second: int, uid: str = "", **more: object) -> None:
        """An Event about an object of this namespace; `second` orders them."""
        api_version = {"RLHFRun": API_VERSION, "Job": "batch/v1", "Pod": "v1"}[kind]
        about = {"apiVersion": api_version, "kind": kind, "name": name, "namespace": self.namespace, "uid": uid}
        body = {
            "metadata": {"generateName": "test-"},
            "involvedObject": about,
            "reason": reason,
            "message": message,
            "type": "Normal",
            "lastTimestamp": f"2099-01-01T00:00:{second:02d}Z",
            **more,
        }
        self.cluster.api.post(f"/api/v1/namespaces/{self.namespace}/events", body)

    def set_pod(self, pod: str, phase: str, state: Json) -> None:
        statuses = [{"name": STAGE_CONTAINER, "image": "stage", "imageID": "", "ready": False, "restartCount": 0, "state": state}]
        body = {"status": {"phase": phase, "containerStatuses": statuses}}
        self.cluster.api.patch(f"/api/v1/namespaces/{self.namespace}/pods/{pod}/status", body)

    def _pod(self, name: str) -> Json:
        return self.cluster.api.get(f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def _meta(self, run: str) -> Json:
        metadata = self.get(run)["metadata"]
        return {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}

    def _path(self, name: str = "") -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/rlhfruns" + (f"/{name}" if name else "")


class Following:
    """A rlhfctl that follows a run. A context manager: it is gone at the end, whatever the test did."""

    def __init__(self, folder: Path, env: Mapping[str, str], arguments: tuple[str, ...]) -> None:
        self._out, self._err = folder / "following.out", folder / "following.err"
        self._what = " ".join(arguments)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rlhfctl", *arguments],
            cwd=folder,
            env=environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=self._out.open("w"),
            stderr=self._err.open("w"),
        )

    def __enter__(self) -> Following:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, text: str) -> None:
        """Wait until it does, on stdout or stderr; words may be on several lines."""

        def said() -> bool:
            assert self._process.poll() is None or self._has(text), f"rlhfctl {self._what} ended: {self.out}{self.err}"
            return self._has(text)

        wait_until(said, f"{text!r} from rlhfctl {self._what}", seconds=120, every=0.1)

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def ended(self) -> Done:
        return Done(self._process.wait(timeout=120), self.out, self.err)

    def _has(self, text: str) -> bool:
        return text in " ".join(self.out.split()) or text in " ".join(self.err.split())
