"""`python tests/cluster`, as a person uses it."""

from __future__ import annotations

import subprocess
import sys

from support.documents import ROOT


def tool(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    """What it prints, from a folder that is not the checkout."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "cluster"), *arguments],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in codes, done.stdout + done.stderr
    return done.stdout
