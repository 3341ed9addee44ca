"""What a file of points says is told to the trackers that the environment switches on, as it grows.

    rank 0 ──> metrics.jsonl <──(stage's process, a thread a tracker)──> TensorBoard, Weights & Biases, MLflow

The file is the queue: what writes it never waits, whatever a tracker does, and no point is held in memory. Of a resumed training
each tracker is told what it does not have yet.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rlhf_api.stage import StageConfig, StageResult
from rlhf_trainer.runtime.logs import log

from .origin import Client, Origin
from .trackers import Tracker, asked_for

EVERY_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
#: For what the trackers do not have yet when the stage is through: all of them together.
END_SECONDS = 10.0
#: A point that a tracker has refused so often is left out: it may be the point.
_TRIES = 3
_SECRET = re.compile(r"KEY|TOKEN|PASSWORD|SECRET", re.IGNORECASE)
_USER_INFO = re.compile(r"//[^/@\s]+@")


@contextmanager
def followed(origin: Origin, file: Path, environment: Mapping[str, str], *, every: float = EVERY_SECONDS) -> Iterator[None]:
    """While the block runs. Raises nothing of its own; waits END_SECONDS at most at its end."""
    threads = [Following(tracker, origin, file, environment, every) for tracker in asked_for(environment) if tracker.installed]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.finish()
        deadline = time.monotonic() + END_SECONDS
        for thread in threads:
            thread.wait(deadline)


def tell_result(config: StageConfig, result: StageResult, scratch: Path, environment: Mapping[str, str]) -> None:
    """The metrics of a stage as one point, at the step of its iteration. Raises nothing; waits END_SECONDS at most."""
    if not result.metrics or not asked_for(environment):
        return
    point: dict[str, float] = {"step": config.iteration or 0}
    for name, found in result.metrics.items():
        interval = {"": found.value, "/lower": found.lower, "/upper": found.upper}
        point |= {f"{name}{end}": value for end, value in interval.items() if value is not None}
    file = scratch / f"points-{result.stage}.jsonl"
    try:
        file.write_text(json.dumps(point) + "\n")
    except OSError as error:
        log.warning("No tracker is told the metrics of %s: %s", result.stage, error)
        return
    with followed(Origin.of_results(config, result.stage), file, environment):
        pass


class Following:
    """One file and one tracker."""

    def __init__(self, tracker: Tracker, origin: Origin, file: Path, environment: Mapping[str, str], every: float) -> None:
        self._tracker, self._origin, self._environment, self._every = tracker, origin, environment, every
        self._lines = _Lines(file)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"tracker-{tracker.module}", daemon=True)
        self._failed = False
        self._refused = 0

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:  # So many threads are not allowed here.
            self._tell(error)

    def finish(self) -> None:
        """Nothing is written any more."""
        self._over.set()

    def wait(self, deadline: float) -> None:
        """Until time.monotonic() is `deadline` at most; then what the tracker was not told is said."""
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))
        late = self._thread.is_alive()
        missing = self._refused + self._lines.left()
        if missing or late:
            log.warning(
                "%s was not told %d points of %s%s", self._tracker.name, missing, self._origin.name, ", or is late" if late else ""
            )

    def _work(self) -> None:
        client: Client | None = None
        failures = 0
        over = False
        while not over:
            over = self._over.wait(min(LONGEST_WAIT_SECONDS, self._every * 2.0 ** min(failures, 16)))
            try:
                if client is None and self._lines.next() is not None:
                    client = self._tracker.open(self._origin, self._environment)
                while client is not None and (point := self._lines.next()) is not None:
                    step, values = point
                    if step > client.told:
                        client.log(step, {f"{self._origin.name}/{key}": value for key, value in values.items()})
                    self._lines.take()
                    failures = 0
                if over and client is not None:
                    client.close()
            except Exception as error:
                failures += 1
                self._tell(error)
                if client is not None and failures % _TRIES == 0 and self._lines.next() is not None:
                    self._lines.take()
                    self._refused += 1

    def _tell(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            said = without_secrets(f"{type(error).__name__}: {error}", self._environment)
            log.warning("%s is not told all of %s, and the stage goes on: %s", self._tracker.name, self._origin.name, said)


class _Lines:
    """The points of a file that grows, one at a time. Its writer may cut it down first, to what it is going on from."""

    def __init__(self, file: Path) -> None:
        self._file, self._offset = file, 0

    def next(self) -> tuple[int, dict[str, float]] | None:
        """None: there is none yet."""
        while line := self._line():
            point = _point(line)
            if point is not None:
                return point
            self._offset += len(line)
        return None

    def take(self) -> None:
        """The next one is done with."""
        self._offset += len(self._line())

    def left(self) -> int:
        """How many were not taken."""
        try:
            with self._file.open("rb") as lines:
                lines.seek(self._offset)
                return sum(1 for line in lines if line.endswith(b"\n") and _point(line) is not None)
        except OSError:
            return 0

    def _line(self) -> bytes:
        """Empty where none is whole."""
        try:
            with self._file.open("rb") as lines:
                if self._offset > lines.seek(0, 2):
                    self._offset = 0
                lines.seek(self._offset)
                line = lines.readline()
        except FileNotFoundError:
            return b""
        return line if line.endswith(b"\n") else b""


def _point(line: bytes) -> tuple[int, dict[str, float]] | None:
    try:
        entry = json.loads(line)
        step = int(entry.pop("step"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return step, {key: float(value) for key, value in entry.items() if isinstance(value, int | float) and math.isfinite(value)}


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """One short line. An error of a client may have the request in it, and so the key."""
    for name, value in environment.items():
        if len(value) >= 4 and _SECRET.search(name):
            text = text.replace(value, f"${name}")
    text = _USER_INFO.sub("//…@", text)
    return " ".join(text.split())[:300]
