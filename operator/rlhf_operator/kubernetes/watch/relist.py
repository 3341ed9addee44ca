"""The full list, again and again: what the watches missed comes in, what vanished unseen goes out of the index.

A watch that the server sent away with 410 begins with a list, and such a list does not tell of what is gone. So each list of a
watch asks for one of these too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.errors import ClusterError, Forbidden, Gone, NotFound
from rlhf_operator.kubernetes.api.resources import JOBS, PODS, RUNS, Resource
from rlhf_operator.kubernetes.objects.keys import Kind, RunKey
from rlhf_operator.kubernetes.objects.labels import OURS

from .index import Index
from .workqueue import WorkQueue

_logger = logging.getLogger(__name__)

#: What is listed and watched, and by which labels.
WATCHED: dict[Kind, tuple[Resource, str | None]] = {Kind.RUN: (RUNS, None), Kind.JOB: (JOBS, OURS), Kind.POD: (PODS, OURS)}
_PAGE = 100
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 15.0
#: Between two lists, however often one is asked for.
_REST_SECONDS = 5.0


class Relist:
    def __init__(
        self,
        cluster: Cluster,
        index: Index,
        queue: WorkQueue[RunKey],
        *,
        namespaces: tuple[str, ...],
        seconds: float,
        indexed: threading.Event,
    ) -> None:
        self._cluster = cluster
        self._index = index
        self._queue = queue
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._seconds = seconds
        self._indexed = indexed
        self._wanted = threading.Event()
        self._refused: set[str | None] = set()
        """Namespaces that could not be listed the last time."""

    def want(self) -> None:
        """List soon, not only when it is time."""
        self._wanted.set()

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        wait = _FIRST_WAIT
        while not stop.is_set():
            beat()
            self._wanted.clear()
            try:
                self.once()
            except Exception as error:
                _logger.warning(
                    "The cluster cannot be listed; what is known of it grows old: %s",
                    error,
                    exc_info=not isinstance(error, ClusterError),
                    extra={"retry_in_seconds": wait},
                )
                stop.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                continue
            self._indexed.set()
            wait = _FIRST_WAIT
            stop.wait(min(_REST_SECONDS, self._seconds))
            self._wanted.wait(max(0.0, self._seconds - _REST_SECONDS))

    def once(self) -> None:
        """Replace the index, and put in the runs: those of which something had changed now, the others bit by bit."""
        changed: set[RunKey] = set()
        refused: set[str | None] = set()
        for kind in WATCHED:
            changed |= self._list(kind, refused)
        self._refused = refused
        others = sorted(self._index.keys() - changed)
        for number, key in enumerate(others):
            self._queue.add_after(key, self._seconds * number / len(others))

    def _list(self, kind: Kind, refused: set[str | None]) -> set[RunKey]:
        """The runs of which something had changed; namespaces that cannot be listed are added to `refused`.

        A namespace that was deleted takes the right to list it along: it is as if it were empty, and the others are served. When
        all are refused it is the operator that lacks something, and nothing is forgotten.
        """
        resource, selector = WATCHED[kind]
        changed: set[RunKey] = set()
        errors: dict[str | None, Forbidden | NotFound] = {}
        for namespace in self._namespaces:
            mark = self._index.mark()
            try:
                touched = self._index.replace(kind, self._objects(resource, namespace, selector), since=mark, namespace=namespace)
            except (Forbidden, NotFound) as error:
                errors[namespace] = error
                continue
            # At once: should a later list fail, nothing would tell of these again.
            self._queue.add_all(touched)
            changed |= touched
        if len(errors) == len(self._namespaces):
            raise next(iter(errors.values()))
        for namespace, refusal in errors.items():
            if namespace not in self._refused | refused:
                _logger.warning(
                    "The namespace %s cannot be listed, so its runs are left alone until it can: %s", namespace, refusal
                )
            refused.add(namespace)
            touched = self._index.replace(kind, [], namespace=namespace)
            self._queue.add_all(touched)
            changed |= touched
        return changed

    def _objects(self, resource: Resource, namespace: str | None, selector: str | None) -> Iterator[dict[str, Any]]:
        """Page by page: all of them as dictionaries would be many times what the index keeps."""
        try:
            for page in self._cluster.pages(resource, namespace, label_selector=selector, limit=_PAGE):
                yield from page.items
        except Gone as error:
            raise ClusterError(f"listing {resource.plural} took longer than the server keeps a moment: {error}") from error
