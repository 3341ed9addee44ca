# ruff: noqa: N818 - each name says what happened
"""Every error that a user meets: what happened, why, and what to try.

CliError                 exit 1
├── OtherVersion         exit 1: a run has words that this version does not know
├── UsageProblem         exit 2: the command line asks for something that cannot be
├── NotFound             exit 3: a run, file, field, log or artifact
├── Refused              exit 4: a manifest, with every problem that it has
├── NoConnection         exit 5
├── Conflict             exit 6: someone else holds the run, or it is another run
├── RunFailed            exit 1: the run that this command follows did not succeed
├── TimedOut             exit 100
├── Detached             exit 101
└── Interrupted          exit 130
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .exits import Exit

FOUND_AGAIN = "finished stages whose work is the same are found in the store, not done again"


class CliError(Exception):
    """`what` is one sentence; `why` may have more lines; each entry of `hints` is a command or a sentence to try."""

    exit = Exit.RUN_FAILED

    def __init__(self, what: str, *, why: str = "", hints: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hints = hints


class OtherVersion(CliError):
    """`raw`: the run as it is stored."""

    def __init__(self, what: str, *, why: str, hints: tuple[str, ...], raw: Mapping[str, Any]) -> None:
        super().__init__(what, why=why, hints=hints)
        self.raw = raw


class UsageProblem(CliError):
    exit = Exit.USAGE


class NotFound(CliError):
    exit = Exit.NOT_FOUND


class Refused(CliError):
    """`problems`: of a manifest, each one with its line."""

    exit = Exit.REFUSED

    def __init__(self, what: str, *, why: str = "", hints: tuple[str, ...] = (), problems: tuple[str, ...] = ()) -> None:
        super().__init__(what, why=why, hints=hints)
        self.problems = problems


class NoConnection(CliError):
    exit = Exit.NO_CONNECTION


class Conflict(CliError):
    exit = Exit.CONFLICT

    @classmethod
    def of_fields(cls, name: str, fields: Sequence[str]) -> Conflict:
        """The manifest is another run than the one that has its name."""
        return cls(
            f"run {name!r} exists, and the manifest changes {', '.join(fields)}",
            why="these fields cannot change while the run exists",
            hints=("set them back, or give the manifest another metadata.name", FOUND_AGAIN),
        )


class RunFailed(CliError):
    exit = Exit.RUN_FAILED


class TimedOut(CliError):
    exit = Exit.TIMEOUT


class Detached(CliError):
    exit = Exit.DETACHED


class Interrupted(CliError):
    exit = Exit.INTERRUPTED


def hint_for(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """`did you mean 'X'?` of the known word that `word` most likely stands for; empty where nothing is near."""
    # The API takes its time to load, and only a mistake is worth that.
    from rlhf_api.validation.suggest import nearest

    match = nearest(word, known)
    return (f"did you mean {match!r}?",) if match else ()
