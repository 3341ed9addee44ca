"""How a stage ends when it does not end well.

StageError
├── ConfigurationProblem   exit 64: never retried; says what to change
├── ApplicationProblem     exit 1: retried within the application budget
├── Transient              exit 75: store or hub away for longer than our own retries
├── Preempted              exit 143: stopped by SIGTERM, after a checkpoint where the stage has one
└── RankKilled             exit 137: a rank was killed, so the stage ends as if it had been

Every message says what happened, to which object, and what to do; it reaches the status of the run as it is.
"""

# ruff: noqa: N818 - `except Preempted` reads better than PreemptedError; rlhf_store and httpx do the same.

from __future__ import annotations

from rlhf_api.words import StageExit

#: What a shell and a kubelet report of a process that SIGKILL ended; bare, it counts as infrastructure.
KILLED = 137


class StageError(Exception):
    """The base of the tree; `reason` is the word that conditions and Events carry."""

    exit: int = StageExit.APPLICATION
    reason = "ApplicationError"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class ConfigurationProblem(StageError):
    exit = StageExit.CONFIGURATION
    reason = "ConfigurationError"


class ApplicationProblem(StageError):
    exit = StageExit.APPLICATION


class Transient(StageError):
    exit = StageExit.TRANSIENT
    reason = "StoreUnavailable"


class Preempted(StageError):
    exit = StageExit.PREEMPTED
    reason = "Preempted"


class RankKilled(StageError):
    """A rank vanished without a word: SIGKILL, by the kernel or from outside. The stage ends as if it had been hit itself."""

    exit = KILLED
    reason = "Killed"


#: By exit code: a rank process answers with the code of its error, and the stage process raises it again.
BY_EXIT: dict[int, type[StageError]] = {
    StageExit.APPLICATION: ApplicationProblem,
    StageExit.CONFIGURATION: ConfigurationProblem,
    StageExit.TRANSIENT: Transient,
    StageExit.PREEMPTED: Preempted,
}


def first_line(error: BaseException, otherwise: str | None = None) -> str:
    """Of a library's error, whose other lines are for its own developers. Of one that says nothing: `otherwise`, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__ if otherwise is None else otherwise])[0]
