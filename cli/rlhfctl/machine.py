"""This machine, as far as validation asks."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rlhf_api.validation import Machine


def this_machine(devices: Path = Path("/dev")) -> Machine:
    """Cores that this process may use; GPUs by their device files, without loading a driver's library."""
    gpus = [path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return Machine(cores=len(os.sched_getaffinity(0)), gpus=len(gpus))
