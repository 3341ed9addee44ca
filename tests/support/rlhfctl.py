"""Run rlhfctl as a person does: a process, with its stdout, stderr and exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent / "cli" / "golden"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def environment(**extra: str) -> dict[str, str]:
    """Ours without what would change the output; UTC."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RLHF") and key not in ("NO_COLOR", "COLUMNS")}
    return {**kept, "TZ": "UTC", "PYTHONIOENCODING": "utf-8", **extra}


def rlhfctl(*arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str | None = None) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "rlhfctl", *arguments],
        cwd=cwd,
        env=environment(**(env or {})),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def assert_golden(name: str, text: str) -> None:
    """`text` is what tests/cli/golden/<name> holds. With UPDATE_GOLDEN=1 it is written there instead."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"differs from {path}; look, then UPDATE_GOLDEN=1"
    # A URL is never broken, so that it can be copied.
    wide = [line for line in text.splitlines() if len(line) > 80 and "://" not in line]
    assert not wide or name.startswith("wide"), f"wider than 80 columns: {wide}"
