"""Run rlhfctl as a person does, with its stdout, stderr and exit code: its entry point here, or a process where that matters."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from rlhfctl.main import run
from support.golden import assert_golden

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
    """The entry point in this process: half a second less than a process of its own, which is what most tests need."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        patch.dict(os.environ, environment(**(env or {})), clear=True),
        patch.object(sys, "stdin", io.StringIO(stdin or "")),
        chdir(cwd or Path.cwd()),
        _time_zone(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = run(arguments)
    return Done(int(code), _text(out), _text(err))


def process(*arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Done:
    """A process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "rlhfctl", *arguments],
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def on_terminal(*arguments: str, keys: str, env: Mapping[str, str]) -> tuple[int, str]:
    """A process of its own on a terminal, where somebody types `keys`; its exit code and what the terminal shows."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "rlhfctl", *arguments],
        env=environment(TERM="xterm", **env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as started:
        os.close(theirs)
        os.write(ours, keys.encode())
        shown = b""
        # On Linux a terminal whose last process has gone answers EIO.
        with suppress(OSError):
            while more := os.read(ours, 4096):
                shown += more
        os.close(ours)
        return started.wait(timeout=300), shown.decode()


def assert_screen(name: str, text: str) -> None:
    """`text` is what tests/cli/golden/<name> holds, and fits a terminal."""
    assert_golden(text, GOLDEN / name)
    # A URL is never broken, so that it can be copied.
    wide = [line for line in text.splitlines() if len(line) > 80 and "://" not in line]
    assert not wide or name.startswith("wide"), f"wider than 80 columns: {wide}"


@contextmanager
def _time_zone() -> Iterator[None]:
    time.tzset()
    try:
        yield
    finally:
        time.tzset()


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode("utf-8")
