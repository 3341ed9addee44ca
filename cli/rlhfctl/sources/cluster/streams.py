"""Several blocking iterators as one: each on a thread of its own, what they give in one queue."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
#: Python looks for a signal before it waits and not while it does: of one in between, nobody knows until the wait is over.
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class _Raised:
    error: BaseException


class Streams(Generic[T]):
    """Threads are daemons: a read that blocks does not keep the process, and Ctrl-C is never waited for."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[T | _Raised] = queue.SimpleQueue()
        self._closed = threading.Event()

    def add(self, items: Iterable[T]) -> None:
        threading.Thread(target=self._pump, args=(items,), daemon=True).start()

    def until(self, deadline: float | None) -> Iterator[T]:
        """What comes, for ever or until time.monotonic() is past `deadline`. An iterator's exception is raised here."""
        while True:
            left = _LOOK_SECONDS if deadline is None else deadline - time.monotonic()
            try:
                item = self._queue.get(timeout=min(max(0.0, left), _LOOK_SECONDS))
            except queue.Empty:
                if left <= _LOOK_SECONDS and deadline is not None:
                    return
                continue
            if isinstance(item, _Raised):
                raise item.error
            yield item

    def close(self) -> None:
        """No iterator is asked for more; one that waits for its server ends with its next item."""
        self._closed.set()

    def _pump(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if self._closed.is_set():
                    return
                self._queue.put(item)
        except BaseException as error:
            self._queue.put(_Raised(error))
