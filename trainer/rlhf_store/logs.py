"""runs/<namespace>/<run>/<uid>/logs/: what the pods of a run wrote. No stage reads them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from rlhf_api.conventions.log_names import LogName
from rlhf_api.stage import RunRef

from .errors import AlreadyExists, StoreError
from .pointers import run_folder
from .store import Store

_FILE = re.compile(r"(?P<name>[^/.]+)(?:\.(?P<number>\d+))?\.log")


@dataclass(frozen=True)
class KeptLog:
    """One object with the log of one pod."""

    key: str
    name: LogName
    number: int
    """From 1, in the order in which they were put first: a pod that its Job replaced has the same name as the one after it."""


def logs_folder(run: RunRef) -> str:
    return f"{run_folder(run)}/logs"


def log_key(run: RunRef, name: LogName, number: int = 1) -> str:
    """logs/<name>.log, logs/<name>.2.log and so on."""
    return f"{logs_folder(run)}/{name}" + ("" if number == 1 else f".{number}") + ".log"


def kept_logs(store: Store, run: RunRef) -> list[KeptLog]:
    """All of the run, by name: not in the order of its stages. Raises StoreError."""
    folder = f"{logs_folder(run)}/"
    logs = []
    for entry in store.list(folder):
        found = _FILE.fullmatch(entry.key.removeprefix(folder))
        name = None if found is None else LogName.parse(found["name"])
        if found is not None and name is not None:
            logs.append(KeptLog(entry.key, name, int(found["number"] or 1)))
    return logs


class LogWriter:
    """Puts the log of one pod as it grows, each time as a whole, always to the object that its first put made."""

    def __init__(self, store: Store, run: RunRef, name: LogName) -> None:
        self._store, self._run, self._name = store, run, name
        self._number = 1
        self._ours = False
        self._tried: set[bytes] = set()
        """Digests of what was put to this object by puts that failed: one of them may have made it all the same."""

    @property
    def key(self) -> str:
        return log_key(self._run, self._name, self._number)

    def put(self, content: bytes) -> None:
        """Raises StoreError; what an earlier put has left is then still there."""
        while not self._ours:
            try:
                self._store.put(self.key, content, if_absent=True)
                self._ours = True
                return
            except AlreadyExists:
                if self._tried and _digest(self._store.get(self.key)) in self._tried:
                    self._ours = True
                else:
                    self._number += 1
                    self._tried.clear()
            except StoreError:
                # Everybody's log begins empty: that one is nobody's own.
                if content:
                    self._tried.add(_digest(content))
                raise
        self._store.put(self.key, content)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
