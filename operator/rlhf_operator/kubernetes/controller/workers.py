"""The workers: threads that take a run from the queue, give it a round, and put it back for when it wants to be looked at again.

Nothing that a round raises ends a worker. What the API server may answer is told in a line; anything else is our own mistake, and
is told with its traceback. Both are tried again, later and later.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from rlhf_operator.kubernetes.api.errors import ApiError, ClusterError, NotLeader
from rlhf_operator.kubernetes.objects.keys import RunKey
from rlhf_operator.kubernetes.telemetry.health import Heartbeats
from rlhf_operator.kubernetes.telemetry.metrics import Metrics
from rlhf_operator.kubernetes.watch.workqueue import Backoff, WorkQueue

_logger = logging.getLogger(__name__)

#: A worker without work shows that it lives this often.
_IDLE_SECONDS = 5.0
#: Every request has a time limit, and a round has few of them.
_STUCK_SECONDS = 600.0
#: Of the Retry-After of an overloaded server.
_LONGEST_ASKED_SECONDS = 60.0


class Workers:
    """`wait_until_leading(seconds)`: whether this process may write, waited for so long."""

    def __init__(
        self,
        queue: WorkQueue[RunKey],
        round_of: Callable[[RunKey], timedelta | None],
        *,
        wait_until_leading: Callable[[float], bool],
        backoff: Backoff[RunKey],
        metrics: Metrics,
        heartbeats: Heartbeats,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._round_of = round_of
        self._wait_until_leading = wait_until_leading
        self._backoff = backoff
        self._metrics = metrics
        self._heartbeats = heartbeats
        self._clock = clock
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        for number in range(count):
            name = f"worker {number}"
            self._heartbeats.expect(name, _STUCK_SECONDS)
            thread = threading.Thread(target=self._work, args=(name,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout: float) -> bool:
        """Let rounds end that are at work, and begin no other; False: some are still at work after `timeout`."""
        self._stopping.set()
        self._queue.close()
        deadline = self._clock() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, name: str) -> None:
        while not self._stopping.is_set():
            self._heartbeats.beat(name)
            if not self._wait_until_leading(_IDLE_SECONDS):
                continue
            key = self._queue.get(_IDLE_SECONDS)
            if key is None:
                continue
            try:
                self._one(key)
            finally:
                self._queue.done(key)

    def _one(self, key: RunKey) -> None:
        begun = self._clock()
        try:
            wait = self._round_of(key)
        except NotLeader:
            self._queue.add(key)
        except Exception as error:
            self._metrics.reconcile_failed()
            asked = error.retry_after if isinstance(error, ApiError) else None
            # What the server asks for counts, but not for ever.
            seconds = max(self._backoff.failed(key), min(asked or 0.0, _LONGEST_ASKED_SECONDS))
            _logger.error(
                "A round failed: %s",
                error,
                exc_info=not isinstance(error, ClusterError),
                extra={"run": str(key), "retry_in_seconds": seconds},
            )
            self._queue.add_after(key, seconds)
        else:
            self._backoff.succeeded(key)
            if wait is not None:
                self._queue.add_after(key, wait.total_seconds())
        finally:
            self._metrics.reconciled(self._clock() - begun)
