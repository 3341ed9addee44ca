"""From a Job's end to the run's next Job, as watches of Jobs and Pods tell it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cluster.api import Watch
from cluster.handle import Cluster

Json = dict[str, Any]
RUNS = "/apis/rlhf.dev/v1alpha1/namespaces/{}/rlhfruns"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
PODS = "/api/v1/namespaces/{}/pods"
RUN_LABEL = "rlhf.dev/run"


@dataclass
class Gaps:
    """What a watch of Jobs and one of Pods tell. A Job's end is what comes first: that all its pods have succeeded, for then it
    holds no GPU any more, or its condition Complete, which its controller writes later. The run's next new Job ends the gap.
    """

    found: list[tuple[float, float]] = field(default_factory=list)
    """(When a Job had ended, seconds until the next.)"""
    _latest: dict[str, str] = field(default_factory=dict)
    """The name of each run's latest Job."""
    _completions: dict[str, int] = field(default_factory=dict)
    """Pods that must succeed, by the Job's name."""
    _succeeded: dict[str, set[str]] = field(default_factory=dict)
    """The uids of those that did."""
    _ended: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take_job(self, kind: str, job: Json, now: float) -> None:
        metadata = job["metadata"]
        run, name = metadata.get("labels", {}).get(RUN_LABEL), metadata.get("name")
        if run is None or name is None:
            return
        with self._lock:
            if kind == "ADDED":
                self._completions[name] = job["spec"]["completions"]
                ended = self._ended.get(self._latest.get(run, ""))
                self._latest[run] = name
                if ended is not None:
                    self.found.append((ended, now - ended))
            if _is_complete(job):
                self._end(run, name, now)

    def take_pod(self, _: str, pod: Json, now: float) -> None:
        labels = pod["metadata"].get("labels", {})
        run, name = labels.get(RUN_LABEL), labels.get("batch.kubernetes.io/job-name")
        if run is None or name is None or pod["status"].get("phase") != "Succeeded":
            return
        with self._lock:
            done = self._succeeded.setdefault(name, set())
            done.add(pod["metadata"]["uid"])
            if len(done) == self._completions.get(name):
                self._end(run, name, now)

    def _end(self, run: str, name: str, now: float) -> None:
        if name in self._ended:
            return
        self._ended[name] = now
        if self._latest.get(run) != name:
            # The operator was told before we were, and the next Job is there already.
            self.found.append((now, 0.0))


@contextmanager
def gaps_of(cluster: Cluster, namespace: str) -> Iterator[Gaps]:
    gaps, stopped = Gaps(), threading.Event()
    watches: dict[str, Watch] = {}

    def follow(path: str, version: str, take: Callable[[str, Json, float], None]) -> None:
        while not stopped.is_set():
            watches[path] = watch = cluster.api.watch(path, version)
            for kind, obj in watch:
                take(kind, obj, time.monotonic())
                version = obj["metadata"]["resourceVersion"]

    threads = []
    for path, take in ((JOBS.format(namespace), gaps.take_job), (PODS.format(namespace), gaps.take_pod)):
        version = cluster.api.get(path, limit=1)["metadata"]["resourceVersion"]
        threads.append(threading.Thread(target=follow, args=(path, version, take), daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield gaps
    finally:
        stopped.set()
        for watch in list(watches.values()):
            watch.close()
        for thread in threads:
            thread.join(10)


def _is_complete(job: Json) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(found["type"] == "Complete" and found["status"] == "True" for found in conditions)
