"""The log of a stage's processes: lines with a time, on stderr."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger("rlhf_trainer")


def log_to_stderr() -> None:
    """Ours from INFO on; of libraries that bring no handler of their own, from WARNING on."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
