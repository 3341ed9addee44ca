"""Commands as a person types them into a shell."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

_PATIENCE_SECONDS = 600


def answer_to(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """What a shell in `folder` prints, on stdout and stderr. AssertionError, with it, where the exit code is not 0."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout
