"""How long the GPUs stand idle between two stages: from a Job's end, as the watch tells it, to the next Job of its run.

The API server's own times are whole seconds, so the clock of this process is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .index import RunKey


class Gaps:
    """Thread-safe. `measured` gets seconds."""

    def __init__(self, clock: Callable[[], float], measured: Callable[[float], None]) -> None:
        self._clock = clock
        self._measured = measured
        self._lock = threading.Lock()
        self._ended: dict[RunKey, tuple[str, float | None]] = {}
        """The Job that ended last, by uid, and when that was told; None: what came after it is known."""

    def told(self, key: RunKey, job: dict[str, Any]) -> bool:
        """A change of a Job: whether a gap begins with it. Of several changes after a Job's end the first counts."""
        uid = job["metadata"]["uid"]
        if "deletionTimestamp" in job["metadata"] or not _ended(job):
            return False
        with self._lock:
            begins = self._ended.get(key, ("", None))[0] != uid
            if begins:
                self._ended[key] = (uid, self._clock())
        return begins

    def created(self, key: RunKey) -> None:
        """The run's next Job is there."""
        with self._lock:
            uid, told = self._ended.get(key, ("", None))
            self._ended[key] = (uid, None)
        if told is not None:
            self._measured(self._clock() - told)

    def waits(self, key: RunKey) -> None:
        """The run waits for a person or for a back-off, or has ended: that is no gap."""
        with self._lock:
            if key in self._ended:
                self._ended[key] = (self._ended[key][0], None)

    def forget(self, key: RunKey) -> None:
        """The run is gone."""
        with self._lock:
            self._ended.pop(key, None)


def _ended(job: dict[str, Any]) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(found["type"] in ("Complete", "Failed") and found["status"] == "True" for found in conditions)
