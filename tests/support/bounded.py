"""Commands that build something: each ends in time, and with whoever started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

#: Who became root without a login may have a PATH without the folders of system programs.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(
    command: Sequence[str], *, seconds: float, environment: Mapping[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """What it answered and said. Raises subprocess.TimeoutExpired where it takes longer.

    It is ended then, with all that it has started, and so it is when we are interrupted. When we are killed, the kernel ends it: it
    must not work on while somebody else begins the same.
    """
    setpriv = shutil.which("setpriv", path=SYSTEM_PATH)
    bound = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    # Into files: who reads a pipe to its end waits for the last grandchild that holds it.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [*bound, *command],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except BaseException:
            with suppress(ProcessLookupError, ChildProcessError):
                os.killpg(process.pid, signal.SIGKILL)
                # Not process.wait(): an interrupt may have left its lock taken.
                os.waitpid(process.pid, 0)
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())
