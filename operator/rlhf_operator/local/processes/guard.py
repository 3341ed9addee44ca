"""The parent of one stage process; it sees to it that nothing of the stage outlives its supervisor, whatever way that dies.

Run as a script, by path, without site packages: it starts in milliseconds and imports nothing of ours.

    python -I -S guard.py LIFELINE MARKER SUPERVISOR -- COMMAND...

LIFELINE is a file descriptor, the reading end of a pipe whose other end only the supervisor holds: end of file means that the
supervisor is gone. MARKER is an environment entry (NAME=value) that the stage and all its descendants carry, also those that made
sessions of their own, as torchrun's workers do: they go with the stage. SUPERVISOR is one that the guard gives to its stage and
does not carry itself: its carriers go with the supervisor, also what a stage of the fork server started, whose MARKER is another.
SIGTERM is passed on to the stage alone, as a container runtime does. The exit code is the stage's; 128 + n where signal n ended it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_COULD_NOT_START = 127
_HANDLED = (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    lifeline, marker, supervisor, command = int(arguments[0]), arguments[1], arguments[2], arguments[4:]
    # Signals become bytes on a pipe, so that one select sees them together with the end of the supervisor.
    waking, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for handled in _HANDLED:
        signal.signal(handled, lambda *_: None)
    stage = _start(command, lifeline, supervisor)
    while True:
        readable, _, _ = select.select([lifeline, waking], [], [])
        if lifeline in readable:
            _kill(stage)
            kill_marked(supervisor)
            return 128 + signal.SIGKILL
        for number in os.read(waking, 256):
            if number == signal.SIGTERM:
                _send(stage, signal.SIGTERM)
        ended, status = os.waitpid(stage, os.WNOHANG)
        if ended == stage:
            kill_marked(marker)
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def kill_marked(marker: str) -> int:
    """Kill every process that carries the environment entry, but this one, until none is left; returns how many there were."""
    wanted = marker.encode()
    killed: set[int] = set()
    pause = 0.002
    while True:
        found = [pid for pid in _processes() if pid != os.getpid() and wanted in _environment(pid)]
        if not found:
            return len(killed)
        killed.update(found)
        for pid in found:
            _kill(pid)
        select.select([], [], [], pause)
        # One that the kernel holds (a disk or a device that does not answer) goes when that does: looking costs all of /proc.
        pause = min(2 * pause, 0.25)


def _start(command: list[str], lifeline: int, supervisor: str) -> int:
    guard = os.getpid()
    child = os.fork()
    if child:
        return child
    # The stage goes with the guard, should somebody kill that.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(_COULD_NOT_START)
    os.close(lifeline)
    signal.set_wakeup_fd(-1)
    for handled in _HANDLED:
        signal.signal(handled, signal.SIG_DFL)
    try:
        name, _, value = supervisor.partition("=")
        os.execvpe(command[0], command, {**os.environ, name: value})  # noqa: S606 - the supervisor made the command
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(_COULD_NOT_START)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - as above


def _environment(pid: int) -> list[bytes]:
    """Empty for a process of somebody else, a kernel thread, a zombie, or one that is gone."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - pathlib costs a third of the start
            return file.read().split(b"\0")
    except OSError:
        return []


def _kill(pid: int) -> None:
    _send(pid, signal.SIGKILL)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
