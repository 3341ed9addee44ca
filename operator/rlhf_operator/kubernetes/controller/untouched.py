"""Runs that another version wrote, in words that this one does not know: left as they are, and told of once (ADR 0019).

Their Jobs go on; nothing is made, deleted or written until an operator is back that knows the words. Deletion needs no operator:
Jobs go with their owner, and the run has no finalizer of ours.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from rlhf_api.reading.unknown import Mismatch, in_words
from rlhf_api.resource.run import ObjectMeta
from rlhf_api.words import Phase
from rlhf_operator.core.actions import EmitEvent, EventKind
from rlhf_operator.core.status.sentences import clip
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.errors import AlreadyExists, ApiError
from rlhf_operator.kubernetes.api.resources import EVENTS, Json
from rlhf_operator.kubernetes.objects.events import event
from rlhf_operator.kubernetes.objects.keys import RunKey
from rlhf_operator.ports import Clock

_logger = logging.getLogger(__name__)


class Untouched:
    """Thread-safe, but for a key it is called by one thread at a time."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[RunKey, tuple[str, str]] = {}
        """(uid, the first of the words) of the runs that are left alone now."""

    def leave(self, key: RunKey, raw: Json, why: Sequence[Mismatch]) -> None:
        """Say so, unless it was said of this run. One that has ended, or is going, waits for nobody."""
        if "deletionTimestamp" in raw["metadata"] or _ended(raw):
            self.forget(key)
            return
        told = raw["metadata"]["uid"], str(why[0])
        with self._lock:
            known, self._told[key] = self._told.get(key), told
        if known != told:
            message = clip(_message(raw, why))
            _logger.warning("A run is not understood: %s", message, extra={"run": str(key)})
            self._tell(raw, message)

    def forget(self, key: RunKey) -> None:
        """It is gone, or is understood."""
        with self._lock:
            self._told.pop(key, None)

    def count(self) -> int:
        with self._lock:
            return len(self._told)

    def _tell(self, raw: Json, message: str) -> None:
        # Without a version: an operator that starts again meets the Event of the former one, and it is told once.
        found = raw["metadata"]
        metadata = ObjectMeta.model_construct(name=found["name"], namespace=found["namespace"], uid=found["uid"])
        body = event(metadata, EmitEvent(EventKind.WARNING, None, message), self._clock.now())
        try:
            self._cluster.create(EVENTS, found["namespace"], body)
        except AlreadyExists:
            pass
        except ApiError as error:
            _logger.warning("the event %r of %s/%s could not be told: %s", message, found["namespace"], found["name"], error)


def _message(raw: Json, why: Sequence[Mismatch]) -> str:
    image = (raw.get("status") or {}).get("image")
    began = f" (the run began with image {image})" if isinstance(image, str) else ""
    return (
        f"Another version of the operator wrote this run: {in_words(why)}. The run is left as it is, and its Jobs go on; "
        f"it can be deleted. Upgrade the operator, and the CRD with it, to at least the version that wrote it{began}."
    )


def _ended(raw: Json) -> bool:
    return (raw.get("status") or {}).get("phase") in {phase.value for phase in Phase if phase.finished}
