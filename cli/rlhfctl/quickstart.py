"""What `rlhfctl quickstart` does before the run: have the trainer make a model, data and a manifest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from . import terminal
from .errors import CliError
from .local import shown

TAIL_LINES = 15


def prepare(folder: Path, seed: int) -> str:
    """Make the model and the data in `folder`; returns the manifest's path.

    In a process of its own: it needs torch, which rlhfctl never loads.

    Raises:
        CliError: the trainer is not installed, or it failed.
    """
    err = terminal.stderr()
    err.line(f"making a tiny model, its data and a manifest in {shown(folder)} (seed {seed})")
    arguments = [sys.executable, "-m", "rlhf_trainer.quickstart", "--folder", str(folder), "--seed", str(seed)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return shown(Path(lines[-1]))
    if "No module named" in done.stderr:
        missing = done.stderr.strip().splitlines()[-1]
        raise CliError("the trainer is not installed here", why=missing, hints=("pip install 'rlhf-operator[trainer,cpu]'",))
    tail = "\n".join(done.stderr.strip().splitlines()[-TAIL_LINES:])
    raise CliError(f"making the quickstart's model and data failed with exit code {done.returncode}", why=tail)
