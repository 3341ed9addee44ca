"""How long the GPUs stand idle between two stages: from a Job's end, as this process first learns of it, to the run's next Job.

The API server's own times are whole seconds, so the clock of this process is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rlhf_operator.kubernetes.objects.keys import RunKey
from rlhf_operator.kubernetes.objects.observation import phase_of


class Gaps:
    """Thread-safe. `measured` gets seconds. Jobs go by their names, of which each attempt has its own."""

    def __init__(self, clock: Callable[[], float], measured: Callable[[float], None]) -> None:
        self._clock = clock
        self._measured = measured
        self._lock = threading.Lock()
        self._latest: dict[RunKey, tuple[str, float | None]] = {}
        """The Job that was created last, and when its end became known. Only its end counts: what is told of a former one late
        is no gap's beginning, for its successor is at work already.
        """

    def told(self, key: RunKey, job: dict[str, Any]) -> None:
        """A change of a Job, as the watch tells it."""
        if "deletionTimestamp" not in job["metadata"] and phase_of(job).ended:
            self.ended(key, job["metadata"]["name"])

    def ended(self, key: RunKey, job: str) -> None:
        """A Job holds its GPUs no more; of several words of that the first counts."""
        with self._lock:
            if self._latest.get(key) == (job, None):
                self._latest[key] = (job, self._clock())

    def created(self, key: RunKey, job: str) -> None:
        """The run's next Job is there."""
        with self._lock:
            latest, ended = self._latest.get(key, ("", None))
            if latest != job:
                self._latest[key] = (job, None)
        if latest != job and ended is not None:
            self._measured(self._clock() - ended)

    def waits(self, key: RunKey) -> None:
        """The run waits for a person or for a back-off, or has ended: that is no gap."""
        self.forget(key)

    def forget(self, key: RunKey) -> None:
        """The run is gone."""
        with self._lock:
            self._latest.pop(key, None)
