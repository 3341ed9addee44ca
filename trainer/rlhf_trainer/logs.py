"""The log of a stage's processes: lines with a time, on stderr."""

from __future__ import annotations

import logging
import os
import sys

log = logging.getLogger("rlhf_trainer")


def without_bars() -> None:
    """Before libraries are imported: a bar that goes back to the beginning of its line a thousand times is no line of a log."""
    os.environ.setdefault("TQDM_DISABLE", "1")


def log_to_stderr() -> None:
    """Ours from INFO on; of libraries that bring no handler of their own, from WARNING on."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
