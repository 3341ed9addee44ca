"""Stages forked from one process that has imported everything: on a laptop, imports are most of a stage (ADR 0009).

The fork server is rlhf_trainer.process.forkserver, a program to us: this side speaks its three lines of JSON. It loads while the
first stage waits for it; where it does not start, or once it is lost, stages are plain processes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rlhf_api.words import StageExit
from rlhf_operator.local.errors import writing

from . import guard
from .environment import surroundings
from .launcher import MARKER, Launcher, Process


class WarmLauncher:
    """`plain` starts the server, with the first stage of the trainer, and what is no such stage or has other surroundings."""

    def __init__(self, plain: Launcher, log: Path) -> None:
        self._plain = plain
        self._log = log
        # Only we may connect: who can, can have programs run. And a socket's path has 107 bytes at most.
        with writing(Path(tempfile.gettempdir())):
            self._folder = Path(tempfile.mkdtemp(prefix="rlhf-"))
        self._socket = self._folder / "stages"
        self._server: Process | None = None
        self._surroundings: dict[str, str] = {}
        self._lost = threading.Event()

    def launch(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        if self._lost.is_set() or list(command[:3]) != [sys.executable, "-m", "rlhf_trainer"]:
            return self._plain.launch(command, environment, log)
        if self._server is None:
            self._start(environment)
        if surroundings(environment) != self._surroundings:
            # What libraries read when they are imported would be that of another stage.
            return self._plain.launch(command, environment, log)
        return _Forked(
            self._socket, self._lost, lambda: self._plain.launch(command, environment, log), command[3:], environment, log
        )

    def close(self) -> None:
        if self._server is not None:
            self._server.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "rlhf_trainer.process.forkserver", str(self._socket)]
        # A mark of its own, as long as a pod's uid: a stage writes its own over it, so that /proc shows whose process it is.
        server = self._plain.launch(command, {**environment, MARKER: str(uuid.uuid4())}, self._log)
        self._server = server
        self._surroundings = surroundings(environment)

        def watch() -> None:
            server.wait()
            self._lost.set()

        threading.Thread(target=watch, name="forkserver", daemon=True).start()


class _Forked:
    """A stage in the server's care. It can be told to stop before it has started."""

    def __init__(
        self,
        path: Path,
        lost: threading.Event,
        launch_plain: Callable[[], Process],
        argv: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        self._path = path
        self._lost = lost
        self._launch_plain = launch_plain
        self._request = {"argv": list(argv), "env": dict(environment), "log": str(log)}
        self._marker = f"{MARKER}={environment[MARKER]}"
        self._lock = threading.Lock()
        self._signal: signal.Signals | None = None
        self._plain: Process | None = None
        self.pid = 0

    def wait(self) -> int:
        with socket.socket(socket.AF_UNIX) as connection:
            if not self._connect(connection):
                return self._wait_for_plain()
            code = self._follow(connection)
        guard.kill_marked(self._marker)
        return 128 - code if code < 0 else code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)
        guard.kill_marked(self._marker)

    def _connect(self, connection: socket.socket) -> bool:
        """The server binds its socket first of all; until then there is nothing to connect to. False: it is lost."""
        while True:
            try:
                connection.connect(str(self._path))
            except (FileNotFoundError, ConnectionRefusedError):
                if self._lost.wait(0.02):
                    return False
            else:
                return True

    def _follow(self, connection: socket.socket) -> int:
        """The exit code, as Popen has it. A server that is lost has taken its stages with it: SIGKILL."""
        ended = ""
        with suppress(OSError), connection.makefile("r") as answers:
            connection.sendall(json.dumps(self._request).encode() + b"\n")
            started = answers.readline()
            if started:
                self._started(json.loads(started)["pid"])
                ended = answers.readline()
        return int(json.loads(ended)["exit"]) if ended else -signal.SIGKILL

    def _wait_for_plain(self) -> int:
        try:
            plain = self._launch_plain()
        except OSError:
            return StageExit.APPLICATION
        with self._lock:
            self._plain, self.pid = plain, plain.pid
            wanted = self._signal
        if wanted is not None:
            self._send(wanted)
        return plain.wait()

    def _started(self, pid: int) -> None:
        with self._lock:
            self.pid = pid
            wanted = self._signal
        if wanted is not None:
            self._send(wanted)

    def _send(self, number: signal.Signals) -> None:
        with self._lock:
            self._signal = number
            pid, plain = self.pid, self._plain
        if plain is not None:
            plain.terminate() if number is signal.SIGTERM else plain.kill()
        elif pid:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
