"""The command that runs a manifest here or resumes it, and what is noted of a run so that it can be said later."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from rlhf_api import RLHFRun
from rlhfctl.sources.place import flag, shown

#: Where `run --local` notes the file that the run was read from, and that it goes without GPUs, for hints that say how to go on.
MANIFEST_ANNOTATION = "rlhf.dev/local-manifest"
CPU_ANNOTATION = "rlhf.dev/local-cpu"


def program() -> str:
    """What to type for this program: its path, where its name alone would not find it (`make quickstart` activates nothing)."""
    path = Path(sys.argv[0]).absolute()
    return "rlhfctl" if shutil.which("rlhfctl") or path.name != "rlhfctl" else shown(path)


def run_command(folder: Path, file: str, *, cpu: bool) -> str:
    """The command that runs a manifest here, or resumes it."""
    return f"{program()} run {flag(folder)}{' --cpu' if cpu else ''} {shlex.quote(file)}"


def resume_command(run: RLHFRun, folder: Path) -> str:
    """The command that was given for this run; FILE stands for a manifest that came on stdin."""
    annotations = run.metadata.annotations or {}
    manifest = annotations.get(MANIFEST_ANNOTATION)
    return run_command(folder, shown(Path(manifest)) if manifest else "FILE", cpu=CPU_ANNOTATION in annotations)


def noted(run: RLHFRun, file: str, *, cpu: bool) -> RLHFRun:
    """With the annotations that `resume_command` reads."""
    notes = {} if file == "-" else {MANIFEST_ANNOTATION: str(Path(file).absolute())}
    if cpu:
        notes[CPU_ANNOTATION] = "true"
    annotations = {**(run.metadata.annotations or {}), **notes} or None
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"annotations": annotations})})
