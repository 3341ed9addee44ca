"""`python build_guard.py FD COMMAND…`: a command that ends, with all that it has started, when the pipe FD is closed.

A process of its own, for whoever is killed ends nothing more. It needs the standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_NOT_FOUND, _SIGNALLED = 127, 128
_ROUND_SECONDS = 0.01


def main(pipe: int, command: list[str]) -> int:
    """Its exit code, as a shell tells it."""
    # Whose parent has ended becomes our child, also in a session of its own, so that nobody is lost.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    abandoned = threading.Event()
    ending = threading.Thread(target=_end_with, args=(pipe, abandoned), daemon=True)
    ending.start()
    try:
        code = subprocess.Popen(command).wait()
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_FOUND
    if abandoned.is_set():
        # It was the first to be ended, and not the last.
        ending.join()
    return code if code >= 0 else _SIGNALLED - code


def _end_with(pipe: int, abandoned: threading.Event) -> None:
    # Nothing is ever written to it.
    os.read(pipe, 1)
    abandoned.set()
    while pids := _children(os.getpid()):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Then whose children they had are ours.
        time.sleep(_ROUND_SECONDS)
    os._exit(_SIGNALLED + signal.SIGKILL)


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, its_parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if int(its_parent) == parent and state != "Z":
            found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
