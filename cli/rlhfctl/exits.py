"""The exit codes of rlhfctl. Frozen: scripts read them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a script learns from `$?`; `meaning` is what the documentation prints."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Exit:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = (0, "ok")
    RUN_FAILED = (1, "the run failed, or rlhfctl itself did")
    USAGE = (2, "wrong usage")
    NOT_FOUND = (3, "not found")
    REFUSED = (4, "refused by validation")
    NO_CONNECTION = (5, "no connection, or no access")
    CONFLICT = (6, "conflict: someone else holds it")
    TIMEOUT = (100, "timeout")
    DETACHED = (101, "detached: the run goes on")
    INTERRUPTED = (130, "interrupted")
