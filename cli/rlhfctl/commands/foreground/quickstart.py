"""What `rlhfctl quickstart` does before the run: have the trainer make a model, data and a manifest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rlhf_operator.local import LocalState
from rlhfctl.display import terminal
from rlhfctl.errors import CliError, Conflict
from rlhfctl.sources.local.state import backend_errors, load
from rlhfctl.sources.place import shown

NAME = "quickstart"
TAIL_LINES = 15


def prepare(state: LocalState, seed: int) -> str:
    """Make the model and the data of this seed in <state>/quickstart; returns the manifest's path.

    What a run was started from is left as it is.

    Raises:
        Conflict: there is a quickstart with another seed, or one at work.
        CliError: the trainer is not installed, or it failed.
    """
    folder = state.folder / "quickstart"
    manifest = folder / "run.yaml"
    if NAME in state.names():
        _check_known(state, seed)
        if manifest.exists():
            return shown(manifest)
    return _make(folder, seed)


def _check_known(state: LocalState, seed: int) -> None:
    known = load(state, NAME)
    if known.spec.seed != seed:
        raise Conflict(
            f"the quickstart in {shown(state.folder)} has seed {known.spec.seed}, not {seed}",
            hints=(
                f"rlhfctl quickstart --seed {known.spec.seed}   goes on with it",
                "another folder, with --state, for another seed",
            ),
        )
    with backend_errors(state):
        state.check_free(NAME)


def _make(folder: Path, seed: int) -> str:
    """In a process of its own: it needs torch, which rlhfctl never loads."""
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
