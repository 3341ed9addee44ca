"""The log of a stage's processes: lines with a time, on stderr."""

from __future__ import annotations

import logging
import os
import select
import sys
from contextlib import suppress

log = logging.getLogger("rlhf_trainer")
_STDERR = 2


def say_now(text: str) -> None:
    """A line, from the handler of a signal: it may have interrupted a write, or come while stderr is full and nobody reads it."""
    with suppress(OSError, ValueError):
        if select.select([], [_STDERR], [], 0)[1]:
            os.write(_STDERR, f"{text}\n".encode()[: select.PIPE_BUF])


def log_to_stderr() -> None:
    """Ours from INFO on; of libraries that bring no handler of their own, from WARNING on."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
