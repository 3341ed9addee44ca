"""The running operator: every part, put together, started in order and stopped in order.

    watches (kopf) ─┐
    relist ─────────┼─> index ─> queue ─> workers ─> reconcile ─> API server
                    │                        ^
    lease ──────────┴────────────────────────┘  (nobody writes without it)

What it may do, as RBAC says it; a test compares the requests of whole runs with this table, and the chart's Role is made from it:

| group               | resource            | verbs                        | for |
| ---                 | ---                 | ---                          | --- |
| rlhf.dev            | rlhfruns            | get list watch               | what is to be done |
| rlhf.dev            | rlhfruns/status     | patch                        | server-side apply |
| rlhf.dev            | rlhfruns/finalizers | update                       | children that block their owner's deletion |
| batch               | jobs                | get list watch create delete | attempts |
|                     | pods                | list watch delete            | what became of them; those that outlive their stage |
|                     | services            | get list create patch delete | the rendezvous of several nodes |
|                     | configmaps          | get list create patch delete | a stage's configuration |
| networking.k8s.io   | networkpolicies     | get list create patch delete | only a run's own pods reach its pods |
|                     | events              | list create                  | why a Job has no pods; what people should know |
| coordination.k8s.io | leases              | get create patch             | in its own namespace, of its own name |
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import kopf

from rlhf_operator.clock import SystemClock
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.requests import verb_and_resource
from rlhf_operator.kubernetes.controller.backend import KubernetesBackend
from rlhf_operator.kubernetes.controller.lease import Lease
from rlhf_operator.kubernetes.controller.rounds import Rounds
from rlhf_operator.kubernetes.controller.untouched import Untouched
from rlhf_operator.kubernetes.controller.workers import Workers
from rlhf_operator.kubernetes.objects.keys import RunKey
from rlhf_operator.kubernetes.telemetry.gaps import Gaps
from rlhf_operator.kubernetes.telemetry.health import HealthServer, Heartbeats, Readiness
from rlhf_operator.kubernetes.telemetry.metrics import Metrics
from rlhf_operator.kubernetes.watch.handlers import register
from rlhf_operator.kubernetes.watch.index import Index
from rlhf_operator.kubernetes.watch.relist import Relist
from rlhf_operator.kubernetes.watch.watches import Watches, kopf_settings
from rlhf_operator.kubernetes.watch.workqueue import Backoff, WorkQueue

from .settings import Settings

_logger = logging.getLogger(__name__)

#: A round at work has this long to end when the operator is stopped.
_LAST_ROUNDS_SECONDS = 15.0
#: Everything that is waited for when it is stopped, together; with letting go of the Lease less than a pod's grace period of 30.
_STOP_SECONDS = 20.0
#: A read of the Lease is given up when its next step is due, but is not hurried more than this.
_LEAST_LEASE_READ_SECONDS = 2.0


class Operator:
    """`connect` makes a connection to the cluster, given what Cluster takes."""

    def __init__(self, settings: Settings, connect: Callable[..., Cluster]) -> None:
        monotonic, clock = time.monotonic, SystemClock()
        self._settings = settings
        self._stop_renewing, self._stop_listing = threading.Event(), threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._metrics = metrics = Metrics()
        self._heartbeats = heartbeats = Heartbeats(monotonic)
        self._readiness = Readiness()
        self._index = Index()
        self._queue: WorkQueue[RunKey] = WorkQueue(monotonic)
        write_seconds = settings.lease.seconds - settings.lease.write_seconds
        # The Lease's own connection: it writes what makes the others write.
        read_seconds = max(settings.lease.renew_seconds, _LEAST_LEASE_READ_SECONDS)
        lease_cluster = connect(write_seconds=write_seconds, read_seconds=read_seconds, answered=self._answered)
        self._lease = Lease(lease_cluster, settings.lease, clock=monotonic, now=clock.now, changed=self._lead)
        cluster = connect(may_write=self._lease.may_write, write_seconds=write_seconds, answered=self._answered)
        gaps = Gaps(monotonic, metrics.gap)
        self._relist = Relist(
            cluster,
            self._index,
            self._queue,
            namespaces=settings.namespaces,
            seconds=settings.resync_seconds,
            indexed=self._readiness.indexed,
        )
        registry = kopf.OperatorRegistry()
        register(registry, self._index, self._queue, gaps)
        self._watches = Watches(
            cluster,
            registry,
            kopf_settings(settings.watch_silence_seconds, settings.watch_seconds),
            namespaces=settings.namespaces,
            heartbeats=heartbeats,
            answered=self._answered,
            listed=self._relist.want,
            watching=self._readiness.watching,
        )

        untouched = Untouched(cluster, clock)

        def backend_of(key: RunKey) -> KubernetesBackend:
            return KubernetesBackend(key, cluster, self._index, settings.installation, clock, untouched)

        self._workers = Workers(
            self._queue,
            Rounds(backend_of, clock, metrics, gaps),
            wait_until_leading=self._lease.wait_until_held,
            backoff=Backoff(),
            metrics=metrics,
            heartbeats=heartbeats,
            clock=monotonic,
        )
        metrics.serve_runs(self._index.phases)
        metrics.serve_untouched(untouched.count)
        metrics.serve_queue(self._queue.depth)
        self._health = HealthServer(
            settings.http_host,
            settings.http_port,
            heartbeats=heartbeats,
            readiness=self._readiness,
            leading=self._lease.may_write,
            metrics=metrics.page,
        )

    def run(self, until: Callable[[], object]) -> None:
        """Work until `until` returns; rounds at work then are ended, and the Lease is let go of."""
        self._start()
        until()
        self._stop()

    def _start(self) -> None:
        settings = self._settings
        self._health.start()
        _logger.info("The operator starts.", extra={"address": f"{settings.http_host or '*'}:{self._health.port}"})
        self._heartbeats.expect("relist", 3 * settings.resync_seconds + 300)
        self._heartbeats.expect("lease", 10 * settings.lease.seconds + 60)
        self._thread("relist", self._relist.run, self._stop_listing, lambda: self._heartbeats.beat("relist"))
        self._thread("lease", self._lease.run, self._stop_renewing, lambda: self._heartbeats.beat("lease"))
        self._thread("watches", self._watches.run, self._readiness.indexed)
        self._workers.start(settings.workers)

    def _stop(self) -> None:
        """The Lease last of what writes: it is let go of when nobody writes any more."""
        _logger.info("The operator stops.")
        deadline = time.monotonic() + _STOP_SECONDS

        def left() -> float:
            return max(0.0, deadline - time.monotonic())

        self._readiness.stopping.set()
        self._stop_listing.set()
        self._relist.want()
        self._watches.stop()
        ended = self._workers.stop(_LAST_ROUNDS_SECONDS)
        self._stop_renewing.set()
        self._threads["lease"].join(left())
        if ended and not self._threads["lease"].is_alive():
            self._lease.release()
        else:
            _logger.warning("A round is still at work: the Lease is left to run out.")
        self._threads["watches"].join(left())
        self._health.stop()
        _logger.info("The operator has stopped.")

    def _thread(self, name: str, target: Callable[..., None], *args: Any) -> None:
        thread = self._threads[name] = threading.Thread(target=target, args=args, name=name, daemon=True)
        thread.start()

    def _lead(self, leading: bool) -> None:
        self._metrics.lead(leading)
        if leading:
            self._queue.add_all(self._index.keys())

    def _answered(self, method: str, path: str, watch: bool, status: int) -> None:
        verb, resource = verb_and_resource(method, path, watch)
        self._metrics.requested(verb, resource, str(status) if status else "none")
