"""Operators that are forked from a process which has imported everything: as real as others, and there in a tenth of the time.

    with Forks() as forks, ForkedOperator(forks, folder, kubeconfig, [namespace]) as operator: ...

Run as a program this file is the process that forks.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

from support.operator_process import OperatorProcess, Process

_PR_SET_PDEATHSIG = 1


class Forks:
    """A context manager: the process that forks, and with its end all that it has forked. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Forks:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._server = subprocess.Popen([sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()

    def operator(self, environment: Mapping[str, str], log: Path, clock: Path) -> Forked:
        """`python -m rlhf_operator.kubernetes`, but for the imports."""
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with self._lock:
            request = {"environment": dict(environment), "log": str(log), "clock": str(clock)}
            self._server.stdin.write(json.dumps(request).encode() + b"\n")
            self._server.stdin.flush()
            # The dead are buried at the next request, so until here nobody else can have got this id.
            return Forked(int(self._server.stdout.readline()))


class ForkedOperator(OperatorProcess):
    """An OperatorProcess in all but its start, with a clock that can be set."""

    def __init__(self, forks: Forks, folder: Path, kubeconfig: Path, namespaces: Sequence[str], **settings: str) -> None:
        super().__init__(folder, kubeconfig, namespaces, **settings)
        self._forks = forks
        self._clock = folder / "clock"
        self.set_clock(0.0)

    def set_clock(self, seconds: float) -> None:
        """Its clock goes so much before the machine's from now on."""
        beside = self._clock.with_suffix(".new")
        beside.write_text(str(seconds))
        beside.replace(self._clock)

    def _spawn(self, log: IO[bytes]) -> Process:
        return self._forks.operator(self._environment, self.log, self._clock)


class Forked:
    """What subprocess.Popen is to a child, to a process that is another's child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)
        self._ended = False

    def poll(self) -> int | None:
        """None while it runs, else 0: its exit code is its parent's to know."""
        return 0 if self._wait(0) else None

    def wait(self, timeout: float) -> int:
        if not self._wait(timeout):
            raise TimeoutError(f"process {self.pid} has not ended within {timeout:.0f} s")
        return 0

    def send_signal(self, number: int) -> None:
        if not self._ended:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float) -> bool:
        if not self._ended:
            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            if poll.poll(timeout * 1000):
                self._ended = True
                os.close(self._handle)
        return self._ended


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """A line a request, a line an answer, until there are no more."""
    for line in requests:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_operator(request["environment"], request["log"], Path(request["clock"]))
        answers.write(f"{pid}\n".encode())
        answers.flush()


def _become_operator(environment: Mapping[str, str], log: str, clock: Path) -> None:
    import ctypes

    from rlhf_operator.clock import SystemClock
    from rlhf_operator.kubernetes import app
    from rlhf_operator.kubernetes.__main__ import main

    class SetClock(SystemClock):
        def now(self) -> datetime:
            return super().now() + timedelta(seconds=float(clock.read_text()))

    code = 70
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.environ.clear()
        os.environ.update(environment)
        null, file = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for descriptor, number in ((null, 0), (file, 1), (file, 2)):
            os.dup2(descriptor, number)
        vars(app)["SystemClock"] = SetClock
        code = main()
    finally:
        # Nothing of what the parent would do at its end.
        os._exit(code)


if __name__ == "__main__":
    import rlhf_operator.kubernetes.__main__  # noqa: F401 - what the children need not do any more

    _serve(sys.stdin.buffer, sys.stdout.buffer)
