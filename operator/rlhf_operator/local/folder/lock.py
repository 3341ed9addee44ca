"""One process drives a run: an advisory lock that the kernel drops with its holder, whatever way that dies.

Who drives a run holds the lock alone; who only looks takes it shared, for a moment, and hinders neither others that look nor a run
that starts.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rlhf_operator.local.errors import RunLocked, writing

#: What lasts for moments only: somebody's look, and a holder that has not written its name yet.
_TRIES, _MOMENT = 50, 0.01


@dataclass(frozen=True)
class Holder:
    pid: int
    """0: it took the lock a moment ago and has not written its name yet."""
    host: str
    since: datetime


@contextmanager
def locked(path: Path, name: str, now: datetime) -> Iterator[None]:
    """Hold the lock of run `name`; raises RunLocked, which names the holder. The file goes with its run's folder alone."""

    def take(descriptor: int) -> None:
        if (other := _take(descriptor)) is not None:
            raise RunLocked(name, other.pid, other.host, other.since)

    descriptor = _held(path, take)
    try:
        record = {"pid": os.getpid(), "host": socket.gethostname(), "since": now.isoformat()}
        with writing(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(record).encode(), 0)
        try:
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for a lock that is held for moments only."""
    descriptor = _held(path, lambda descriptor: fcntl.flock(descriptor, fcntl.LOCK_EX))
    try:
        yield
    finally:
        os.close(descriptor)


def holder(path: Path) -> Holder | None:
    """Who holds the lock now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        for _ in range(_TRIES):
            if _try(descriptor, fcntl.LOCK_SH):
                return None
            if (found := _read(descriptor)) is not None:
                return found
            time.sleep(_MOMENT)
        return _UNNAMED
    finally:
        os.close(descriptor)


def _held(path: Path, take: Callable[[int], None]) -> int:
    """A descriptor of the file that is at `path`, locked: one that went with its folder in between could be had by anybody."""
    while True:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            take(descriptor)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take(descriptor: int) -> Holder | None:
    """None: it is ours. Else who has it."""
    for _ in range(_TRIES):
        if _try(descriptor, fcntl.LOCK_EX):
            return None
        if _try(descriptor, fcntl.LOCK_SH):
            # Nobody holds it: somebody looked just then.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        elif (found := _read(descriptor)) is not None:
            return found
        time.sleep(_MOMENT)
    return _UNNAMED


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


_UNNAMED = Holder(0, "unknown", datetime.fromtimestamp(0).astimezone())


def _read(descriptor: int) -> Holder | None:
    """The holder's name; None where what stands there is not the present holder's: that of a former one, which was killed."""
    try:
        record = json.loads(os.pread(descriptor, 4096, 0))
        found = Holder(int(record["pid"]), str(record["host"]), datetime.fromisoformat(record["since"]))
    except (ValueError, KeyError, TypeError):
        return None
    if found.host == socket.gethostname() and (found.pid == os.getpid() or not Path(f"/proc/{found.pid}").exists()):
        return None
    return found
