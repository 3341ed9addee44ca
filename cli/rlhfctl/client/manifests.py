"""A manifest file as a validated RLHFRun, or every problem that it has."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_api import RLHFRun
from rlhf_api.reading.manifest import Manifest, ManifestError, read_manifest
from rlhf_api.reading.schema import node_at
from rlhf_api.validation import Machine, Problem, check_environment, check_machine, validate
from rlhf_operator.local import this_machine
from rlhfctl import figures
from rlhfctl.errors import NotFound, Refused, hint_for


@dataclass(frozen=True)
class Local:
    """What `--local` adds to a manifest before validation; the manifest is then checked against this machine too."""

    store_url: str
    cpu: bool = False


@dataclass(frozen=True)
class Checked:
    """A manifest without problems."""

    run: RLHFRun
    raw: dict[str, Any]
    """As its author wrote it, for the API server."""


def read(file: str, local: Local | None) -> RLHFRun:
    """The run that `file` (- is stdin) describes. With `local`, an absent storage.url is filled in. Raises as `check` does."""
    return check(file, local).run


def check(file: str, local: Local | None) -> Checked:
    """The same, with the manifest itself.

    Raises:
        NotFound: no such file.
        Refused: with every problem.
    """
    shown = "stdin" if file == "-" else file
    try:
        manifest = read_manifest(_text(file))
    except ManifestError as error:
        raise Refused(f"{shown} is no manifest", why=str(error), hints=("rlhfctl explain",)) from error
    raw = manifest.raw if local is None else with_store(manifest.raw, local.store_url)
    validation = validate(raw, local=local is not None)
    problems = list(validation.problems)
    if validation.run is not None and local is not None:
        here = this_machine()
        problems += check_machine(validation.run.spec, Machine(here.cores, here.gpus), cpu=local.cpu)
        problems += check_environment(validation.run.spec, os.environ)
    if problems or validation.run is None:
        raise Refused(
            f"{shown} has {figures.plural(len(problems), 'problem')}",
            hints=_hints(problems, local),
            problems=tuple(_with_line(problem, manifest) for problem in problems),
        )
    return Checked(validation.run, raw)


def with_store(raw: dict[str, Any], url: str) -> dict[str, Any]:
    """`raw` with spec.storage.url, where it has none. What is no object is left for validation to refuse."""
    spec = raw.get("spec")
    if not isinstance(spec, dict):
        return raw
    storage = spec.get("storage")
    if storage is None:
        storage = {}
    if not isinstance(storage, dict) or storage.get("url") is not None:
        return raw
    return {**raw, "spec": {**spec, "storage": {**storage, "url": url}}}


def _text(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    path = Path(file)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        known = [entry.name for entry in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise NotFound(f"there is no file {file}", hints=hint_for(path.name, known)) from error
    except UnicodeDecodeError as error:
        raise Refused(f"{file} is no text in UTF-8", why=str(error)) from error
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}") from error


def _with_line(problem: Problem, manifest: Manifest) -> str:
    line = manifest.line(problem.loc)
    return f"{problem}" if line is None else f"line {line}: {problem}"


def _hints(problems: list[Problem], local: Local | None) -> tuple[str, ...]:
    """Only a run on this machine may leave out where its artifacts go."""
    without_store = local is None and any(problem.loc in (("spec", "storage"), ("spec", "storage", "url")) for problem in problems)
    return (*(("--local, if it is to run on this machine",) if without_store else ()), *_explain_hints(problems))


def _explain_hints(problems: Iterable[Problem]) -> tuple[str, ...]:
    """How to read more of the first field that is wrong, or of what it lies in."""
    for problem in problems:
        for end in range(len(problem.loc), 1, -1):
            if node_at(problem.loc[:end]) is not None:
                path = ".".join(key for key in problem.loc[:end] if isinstance(key, str))
                return (f"rlhfctl explain {path.removeprefix('spec.')}",)
    return ()
