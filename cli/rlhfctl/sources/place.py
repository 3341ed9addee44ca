"""Where the runs are, as a command line says it, and how that is said again."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

DEFAULT_STATE = ".rlhf"


@dataclass(frozen=True)
class Place:
    """What the command line says of where the runs are."""

    local: bool = False
    state: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    all_namespaces: bool = False


def local_folder(state_dir: str | None) -> Path:
    """An absolute path: it goes into file:// URLs."""
    return Path(state_dir or os.environ.get("RLHF_STATE") or DEFAULT_STATE).expanduser().absolute()


def flag(folder: Path) -> str:
    """`--local` where that alone finds the folder, else `--state DIR`."""
    return "--local" if folder == local_folder(None) else f"--state {shlex.quote(shown(folder))}"


def shown(path: Path) -> str:
    """A path as a person would type it from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
