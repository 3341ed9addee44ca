"""Starting a stage's process, behind a protocol: a fork server with warm imports can take the place of plain processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from . import guard

#: The environment variable that marks all processes of one pod.
MARKER = "RLHF_POD_UID"
#: The one that marks all that a launcher started, but for the guards, which kill by it when their supervisor is gone.
SUPERVISOR = "RLHF_SUPERVISOR"


class Process(Protocol):
    """A stage that was started. It and all its descendants die with this process."""

    @property
    def pid(self) -> int: ...

    def wait(self) -> int:
        """Block until it and its descendants are gone; the exit code, 128 + n where signal n ended it. For one thread only."""
        ...

    def terminate(self) -> None:
        """SIGTERM to the stage, which then checkpoints."""
        ...

    def kill(self) -> None:
        """SIGKILL to it and its descendants."""
        ...


class Launcher(Protocol):
    def launch(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        """Start it with this environment, which holds MARKER, and SUPERVISOR; it prints to the end of `log`. Raises OSError."""
        ...


class GuardedLauncher:
    """A guard process a stage (guard.py), with a pipe as its lifeline."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC)
        self._mark = f"{SUPERVISOR}={uuid.uuid4()}"

    def launch(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        marker = f"{MARKER}={environment[MARKER]}"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(self._reading), marker, self._mark, "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(self._reading,),
                # Ctrl-C in the terminal is for the supervisor, which then stops its stages in order.
                start_new_session=True,
            )
        return _Guarded(process, marker)

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


class _Guarded:
    def __init__(self, process: subprocess.Popen[bytes], marker: str) -> None:
        self._process = process
        self._marker = marker

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> int:
        code = self._process.wait()
        # Nothing is left unless somebody killed the guard itself.
        guard.kill_marked(self._marker)
        return 128 - code if code < 0 else code

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        # The guard carries the mark as well: the exit code is 137 either way.
        guard.kill_marked(self._marker)
