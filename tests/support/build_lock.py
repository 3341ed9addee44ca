"""One builds at a time; whoever waits says for whom, and does not wait for ever."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_POLL_SECONDS = 0.2
_SAY_SECONDS = 60.0


class WaitedTooLongError(Exception):
    """Says for whom, and what to do."""


@contextmanager
def held(file: Path, what: str, seconds: float, say: Callable[[str], None]) -> Iterator[None]:
    """The lock on `file`. `seconds`: by then whoever builds `what` is done, whatever happens to it but that it is stopped."""
    # Not "w": that would take away what its holder has written.
    with file.open("a+", encoding="utf-8") as lock:
        _wait(lock, what, seconds, say)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _wait(lock: IO[str], what: str, seconds: float, say: Callable[[str], None]) -> None:
    begun = time.monotonic()
    said, next_say = "", 0.0
    while not _taken(lock):
        now = time.monotonic()
        holder = _holder(lock)
        words = f"{holder} is building {what}; waiting for it"
        if now > begun + seconds:
            raise WaitedTooLongError(
                f"{holder} has been building {what} for {seconds / 60:.0f} min, and should be done by now. Where it is stopped, "
                "let it go on (kill -CONT); or end it (kill), and do the same again."
            )
        if words != said or now > next_say:
            say(words)
            said, next_say = words, now + _SAY_SECONDS
        time.sleep(_POLL_SECONDS)


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: IO[str]) -> str:
    """In words. It has not written who it is where it has only just begun, or is an older checkout."""
    lock.seek(0)
    pid = lock.read().strip()
    try:
        command = Path(f"/proc/{int(pid)}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
        state = Path(f"/proc/{int(pid)}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except ValueError:
        return "another process"
    except OSError:
        return f"process {pid}, which cannot be seen from here,"
    return f"process {pid} ({command[:80]}){', which is stopped (kill -CONT lets it go on),' if state in 'Tt' else ''}"
