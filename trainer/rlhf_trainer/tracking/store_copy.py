"""metrics.jsonl of a training at work, kept in the store, so that its curves are there before its artifact is.

    rank 0 ──> metrics.jsonl ──(stage's process, every 30 s)──> runs/<namespace>/<run>/<uid>/metrics/<stage>-<iteration>.jsonl

The object is written anew each time. A resumed attempt first cuts the file down to its checkpoint, so no step is in it twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from rlhf_store import Store
from rlhf_trainer.runtime.logs import log

EVERY_SECONDS, EVERY_SECONDS_AT_MOST = 30.0, 600.0
#: A file that is twice as long is put half as often, as logs are.
_BYTES_EACH_INTERVAL = 400_000
#: Most that one put holds. Of a longer file every second line is put, or every third, and so on, and the last.
LIMIT_BYTES = 8 << 20
#: For the last put: a pod that is told to go has only so long.
END_SECONDS = 10.0
#: How long one put waits for a store that is away: less than END_SECONDS, so that the store's own words are told.
RETRY_SECONDS = 8.0
_THREAD = "metrics-copy"


class StoreCopy:
    """Whatever goes wrong with it is said once in the log, and changes nothing for the training."""

    def __init__(self, open_it: Callable[[], Store], key: str, file: Path, *, every: float = EVERY_SECONDS) -> None:
        """`open_it`: called in the thread, for a client takes its time to be made."""
        self._open, self._key, self._file, self._every = open_it, key, file, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=_THREAD, daemon=True)
        self._failed = False

    def __enter__(self) -> StoreCopy:
        # What the store logs of its retries would come every 30 s for as long as it is away.
        _quiet_retries()
        try:
            self._thread.start()
        except RuntimeError as error:  # So many threads are not allowed here.
            self._tell(str(error))
        return self

    def __exit__(self, *_: object) -> None:
        """Waits END_SECONDS at most for the last put."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            self._tell(f"the store did not take it within {END_SECONDS:.0f} s of the training's end")

    def _work(self) -> None:
        store: Store | None = None
        kept: bytes = b""
        while True:
            # Looked at before the file: what was written until then is put.
            over = self._over.wait(_interval(self._every, len(kept)))
            try:
                content = whole_lines(self._file)
                if content and content != kept:
                    store = store or self._open()
                    store.put(self._key, content)
                    kept = content
            except Exception as error:
                self._tell(str(error))
            if over:
                return

    def _tell(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            log.warning("The metrics of this training are not in the store, or not all of them, until its end; it goes on: %s", why)


def whole_lines(file: Path, limit: int = LIMIT_BYTES) -> bytes:
    """Of a file that is being written, `limit` bytes or a line more at most; empty where there is none."""
    try:
        stride = -(-file.stat().st_size // limit)
        with file.open("rb") as lines:
            kept, last = bytearray(), b""
            for number, line in enumerate(lines):
                if not line.endswith(b"\n"):
                    break
                last = line
                if number % max(1, stride) == 0:
                    kept += line
                    last = b""
    except FileNotFoundError:
        return b""
    return bytes(kept) + last


def _interval(every: float, size: int) -> float:
    return min(every * max(1.0, size / _BYTES_EACH_INTERVAL), max(every, EVERY_SECONDS_AT_MOST))


class _OfOthers(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != _THREAD


_OF_OTHERS = _OfOthers()


def _quiet_retries() -> None:
    # Not twice: a logger keeps a filter once.
    logging.getLogger("rlhf_store.backends.retry").addFilter(_OF_OTHERS)
