"""What can stop a local run from being driven at all.

LocalError
├── RunNotFound     no such run in the state folder
├── RunLocked       another process drives it
├── RunConflict     the manifest changes what cannot change while the run exists
└── StateUnusable   the state folder cannot be written, or a file in it cannot be read
    └── UnknownWords    another version wrote the run, in words that this one does not know
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rlhf_api.reading.unknown import Mismatch, in_words


class LocalError(Exception):
    """The message says what happened, to what, and what to do."""


class RunNotFound(LocalError):  # noqa: N818 - reads as what it is
    def __init__(self, name: str, state: Path, known: Sequence[str]) -> None:
        self.name = name
        self.known = tuple(known)
        there = f"it has {', '.join(self.known)}" if known else "it has no runs"
        super().__init__(f"There is no run {name!r} in {state}: {there}. Name one of these, or another folder with --state.")


class RunLocked(LocalError):  # noqa: N818
    """`pid`, `host` and `since` of the process that drives the run; pid 0 where it has not written its name yet."""

    def __init__(self, name: str, pid: int, host: str, since: datetime) -> None:
        self.name = name
        self.pid = pid
        self.host = host
        self.since = since
        who = f"process {pid} on {host} since {since:%Y-%m-%d %H:%M:%S %Z}" if pid else "another process, since a moment ago"
        super().__init__(
            f"Run {name!r} is driven by {who}. "
            "Watch it with `rlhfctl status --local`, or stop that process (Ctrl-C there, or SIGTERM) and try again."
        )


class RunConflict(LocalError):  # noqa: N818
    """`fields`: paths in the manifest."""

    def __init__(self, name: str, fields: Sequence[str]) -> None:
        self.name = name
        self.fields = tuple(fields)
        super().__init__(
            f"Run {name!r} exists and is not finished, and the manifest changes {', '.join(self.fields)}, which cannot change. "
            "Set it back, or give the manifest another metadata.name: stages whose work is the same are found in the store."
        )


class StateUnusable(LocalError):  # noqa: N818
    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"{path}: {problem}.")


class UnknownWords(StateUnusable):
    """`stored`: the run as it is in its files. They are left as they are."""

    def __init__(self, name: str, folder: Path, found: Sequence[Mismatch], stored: Mapping[str, Any]) -> None:
        self.name = name
        self.found = tuple(found)
        self.stored = stored
        remedy = "go on with the version of rlhfctl that wrote it, or a newer one"
        super().__init__(folder, f"run {name!r} was written by another version: {in_words(found)}. It is left as it is; {remedy}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around writing to the state folder. Raises StateUnusable, which says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = (
            "free some space and run the same command again: it goes on from there"
            if full
            else "make it writable, or choose another folder with --state"
        )
        raise StateUnusable(path, f"cannot be written ({error.strerror or error}); {remedy}") from error
