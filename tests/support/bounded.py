"""Commands that build something: each ends in time, and with whoever started it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

#: Who became root without a login may have a PATH without the folders of system programs.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GUARD = Path(__file__).with_name("build_guard.py")
#: Of a test that hides the Python of its environment, too.
_PYTHON = os.path.realpath("/proc/self/exe") if Path("/proc/self/exe").exists() else sys.executable


def run(
    command: Sequence[str], *, seconds: float, environment: Mapping[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """What it answered and said. Raises subprocess.TimeoutExpired where it takes longer.

    It is ended then, with all that it has started, and so it is when we are interrupted, or end in any other way: it must not work
    on while somebody else begins the same. A guard (build_guard.py) sees to that, and the kernel where somebody kills the guard.
    """
    setpriv = shutil.which("setpriv", path=SYSTEM_PATH)
    bound = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    ours, its = os.pipe()
    # Into files: who reads a pipe to its end waits for the last grandchild that holds it.
    with (
        os.fdopen(its, "wb") as alive,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as err,
    ):
        with os.fdopen(ours, "rb"):
            process = subprocess.Popen(
                [_PYTHON, "-I", "-S", str(_GUARD), str(ours), *bound, *command],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                pass_fds=(ours,),
            )
        try:
            code = process.wait(seconds)
        except BaseException as error:
            alive.close()
            with suppress(ChildProcessError):
                # Not process.wait(): an interrupt may have left its lock taken.
                os.waitpid(process.pid, 0)
            if isinstance(error, subprocess.TimeoutExpired):
                raise subprocess.TimeoutExpired(command, seconds) from None
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())
