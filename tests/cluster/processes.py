"""Components as processes: started detached, found again by a record of process id and start time, ended by it and only by it.

A process id alone says nothing, for the kernel gives it to another process one day: a record names the moment of the start and the
boot, too, and a process that differs in one of them is somebody else's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import Signals
from typing import Any

_BOOT = Path("/proc/sys/kernel/random/boot_id")
#: An API server asked to stop waits for its clients, up to a minute.
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Identity:
    """One process of this machine, for ever."""

    pid: int
    started: int
    """Clock ticks between boot and start."""
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """None where no such process is, or only its exit code is left of it."""
        fields = _stat(pid)
        # Killed, its first thread is a zombie before the others are gone, and these still hold its ports.
        if not fields or (fields[0] == "Z" and _threads(pid) <= 1):
            return None
        return cls(pid, int(fields[19]), _BOOT.read_text().strip())

    @property
    def alive(self) -> bool:
        return Identity.of(self.pid) == self


class Component:
    """One program of a cluster: its record, its log. Whoever knows the folder can see it, end it, and start it again."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.log = folder / "log" / f"{name}.log"
        self._record = folder / "run" / f"{name}.json"

    @staticmethod
    def all(folder: Path) -> list[Component]:
        """Those with a record, in the order of their start."""
        components = [Component(folder, path.stem) for path in (folder / "run").glob("*.json")]
        return sorted(components, key=lambda component: component._recorded().get("order", 0))

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        order = self._recorded().get("order", len(list(self._record.parent.iterdir())))
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _children.append(process)
        identity = Identity.of(process.pid)
        record = {
            "order": order,
            "identity": asdict(identity) if identity else None,
            "command": [str(word) for word in command],
            "environment": dict(environment or {}),
        }
        beside = self._record.with_suffix(".new")
        beside.write_text(json.dumps(record))
        beside.replace(self._record)

    def restart(self) -> None:
        """The same command again; what ran is killed first."""
        record = self._recorded()
        self.kill()
        self.start(record["command"], record["environment"])

    @property
    def identity(self) -> Identity | None:
        """Of the process while it runs."""
        _reap()
        recorded = self._recorded().get("identity")
        identity = Identity(**recorded) if recorded else None
        return identity if identity is not None and identity.alive else None

    @property
    def running(self) -> bool:
        return self.identity is not None

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP silences it, SIGCONT lets it go on; without a process nothing happens."""
        identity = self.identity
        if identity is not None:
            with suppress(ProcessLookupError):
                os.kill(identity.pid, number)

    def stop(self, patience: float = _PATIENCE_SECONDS) -> None:
        """SIGTERM, and SIGKILL where that is not heard; the record of its command stays."""
        self._end(signal.SIGTERM, patience)
        self._end(signal.SIGKILL, _PATIENCE_SECONDS)

    def kill(self) -> None:
        self._end(signal.SIGKILL, _PATIENCE_SECONDS)

    def forget(self) -> None:
        self._record.unlink(missing_ok=True)

    def last_words(self, lines: int = 15) -> str:
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _recorded(self) -> dict[str, Any]:
        """Empty where it was never started, or the one who started it died over it."""
        try:
            return dict(json.loads(self._record.read_text()))
        except (OSError, ValueError):
            return {}

    def _end(self, number: Signals, seconds: float) -> None:
        self.signal(number)
        self.signal(signal.SIGCONT)
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            time.sleep(0.02)


#: Started by this process: ended, they stay as zombies until they are asked for their exit code.
_children: list[subprocess.Popen[bytes]] = []


def _reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]


def _threads(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return 0


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may hold blanks and brackets itself."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
