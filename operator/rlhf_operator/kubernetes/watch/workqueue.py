"""The queue between what tells of changes and the workers: each key once, by one worker at a time, now or at a time to come.

What a key is put in for is forgotten: a worker looks at what is. So a thousand events of one run are one round, and an event that
comes while its run is at work is one more round after it.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

#: So many alarms of the past are left lying, beside as many as there are of the future.
_PAST_ALARMS = 64
_Key = TypeVar("_Key", bound=Hashable)


class WorkQueue(Generic[_Key]):
    """Thread-safe. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._ready: deque[_Key] = deque()
        self._waiting: set[_Key] = set()
        """In `_ready`."""
        self._working: set[_Key] = set()
        self._again: set[_Key] = set()
        """Put in while at work: goes to `_ready` when it is done."""
        self._due: dict[_Key, float] = {}
        """Of keys that wait for a time."""
        self._alarms: list[tuple[float, int, _Key]] = []
        """Heap over `_due`; entries whose time is not the one in `_due` are of the past."""
        self._alarm_count = 0
        self._closed = False

    def add(self, key: _Key) -> None:
        with self._changed:
            self._add(key)

    def add_first(self, key: _Key) -> None:
        """Before all that wait; of those put in so the last one comes first."""
        with self._changed:
            self._add(key)
            if key in self._waiting:
                self._ready.remove(key)
                self._ready.appendleft(key)

    def add_all(self, keys: Iterable[_Key]) -> None:
        with self._changed:
            for key in keys:
                self._add(key)

    def add_after(self, key: _Key, seconds: float) -> None:
        """Put it in after so long; of two times the earlier one counts."""
        with self._changed:
            due = self._clock() + seconds
            if self._closed or self._due.get(key, due + 1) <= due:
                return
            self._due[key] = due
            self._alarm_count += 1
            heapq.heappush(self._alarms, (due, self._alarm_count, key))
            self._sweep()
            self._changed.notify()

    def get(self, timeout: float | None = None) -> _Key | None:
        """The next key, which is at work until `done`; None: closed, or nothing within `timeout`.

        A time that the key waits for is dropped: whoever works at it now knows when to look again.
        """
        with self._changed:
            deadline = None if timeout is None else self._clock() + timeout
            while True:
                self._ring()
                if self._closed:
                    return None
                if self._ready:
                    return self._take()
                now = self._clock()
                if deadline is not None and deadline <= now:
                    return None
                waits = [deadline - now] if deadline is not None else []
                waits += [self._alarms[0][0] - now] if self._alarms else []
                self._changed.wait(min(waits, default=None))

    def done(self, key: _Key) -> None:
        with self._changed:
            self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self._add(key)

    def close(self) -> None:
        """Whoever waits in `get` is let go, and nothing is given out any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def depth(self) -> int:
        """Keys that a worker could take now, or that must be taken again."""
        with self._changed:
            self._ring()
            return len(self._ready) + len(self._again)

    def _add(self, key: _Key) -> None:
        if self._closed or key in self._waiting:
            return
        if key in self._working:
            self._again.add(key)
            return
        self._waiting.add(key)
        self._ready.append(key)
        self._changed.notify()

    def _take(self) -> _Key:
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        self._due.pop(key, None)
        if self._ready or self._alarms:
            # Whoever waited for the next alarm may be the one that goes to work now.
            self._changed.notify()
        return key

    def _ring(self) -> None:
        """Put in what is due, and drop alarms of the past."""
        now = self._clock()
        while self._alarms and (self._alarms[0][0] <= now or self._due.get(self._alarms[0][2]) != self._alarms[0][0]):
            due, _, key = heapq.heappop(self._alarms)
            if self._due.get(key) == due:
                del self._due[key]
                self._add(key)

    def _sweep(self) -> None:
        """Alarms of the past that lie behind one of the future would never be dropped by `_ring`, and grow without end."""
        if len(self._alarms) > 2 * len(self._due) + _PAST_ALARMS:
            self._alarms = [(due, self._alarm_count + n, key) for n, (key, due) in enumerate(self._due.items(), start=1)]
            self._alarm_count += len(self._alarms)
            heapq.heapify(self._alarms)


class Backoff(Generic[_Key]):
    """How long to wait after the nth failure in a row of a key: doubled each time, up to a longest wait. Not thread-safe by key:
    a key is at one worker at a time.
    """

    def __init__(self, first: float = 0.5, longest: float = 60.0) -> None:
        self._first = first
        self._longest = longest
        self._failures: dict[_Key, int] = {}

    def failed(self, key: _Key) -> float:
        """Count a failure; how many seconds to wait now."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return min(self._longest, self._first * 2.0 ** min(failures, 32))

    def succeeded(self, key: _Key) -> None:
        self._failures.pop(key, None)
