"""Rate and time left, from differences of progress. No clock of its own."""

from __future__ import annotations

from collections import deque
from datetime import datetime

from rlhf_operator.local import Progress

#: Over so many seconds the rate is taken: long enough to be steady, short enough to follow.
WINDOW_SECONDS = 30.0


class Rate:
    """Of one attempt of one stage. A new attempt gets a new one."""

    def __init__(self) -> None:
        self._seen: deque[tuple[datetime, float]] = deque()

    def add(self, time: datetime, progress: Progress) -> None:
        if self._seen and progress.done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((time, progress.done))
        while (time - self._seen[0][0]).total_seconds() > WINDOW_SECONDS and len(self._seen) > 2:
            self._seen.popleft()

    @property
    def per_second(self) -> float | None:
        """None before there is a difference to divide."""
        if len(self._seen) < 2:
            return None
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        seconds = (end - start).total_seconds()
        return (after - before) / seconds if seconds > 0 and after > before else None

    def seconds_left(self, progress: Progress) -> float | None:
        rate = self.per_second
        if rate is None or progress.total is None:
            return None
        return max(0.0, progress.total - progress.done) / rate
