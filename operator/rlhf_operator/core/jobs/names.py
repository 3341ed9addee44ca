"""Names of a run's children: a function of run, iteration, stage and attempt, so that a retried creation meets its own object."""

from __future__ import annotations

import hashlib
import re

from rlhf_api.words import StageName

#: An Indexed Job appends `-<index>` and Kubernetes allows 63 characters in a label; a Service name is an RFC 1035 label.
MAX_CHILD_NAME = 52
#: What the longest suffix, "-i50-reference-" and six digits of attempt, leaves for the run.
_MAX_RUN_PART = MAX_CHILD_NAME - len("-i50-reference-") - 6
_HASH_DIGITS = 8
_ATTEMPT = re.compile(rf".*-i(\d+)-({'|'.join(StageName)})-(\d+)")

_ATTEMPT_OF_ANY_VERSION = re.compile(r".+-i\d+-([a-z][a-z0-9-]*)-\d+")


def child_name(run: str, iteration: int | None, stage: StageName, attempt: int) -> str:
    """The name of one attempt's Job, and of its ConfigMap and Service: `<run>-i<iteration>-<stage>-<attempt>`.

    Stages of the run have i0. Read from the right the name is unambiguous, so two runs never share one; only a long run name is
    cut, and then carries a hash of the whole.
    """
    return f"{_run_part(run)}-i{iteration or 0}-{stage.value}-{attempt}"


def attempt_of(name: str) -> tuple[int | None, StageName, int] | None:
    """Iteration, stage and attempt that `child_name` wrote into a name; None: it did not write this one."""
    found = _ATTEMPT.fullmatch(name)
    return None if found is None else (int(found[1]) or None, StageName(found[2]), int(found[3]))


def unknown_stage_of(name: str) -> str | None:
    """The stage in a name that is as `child_name` writes them, where this version has no such stage; else None."""
    found = _ATTEMPT_OF_ANY_VERSION.fullmatch(name)
    return None if found is None or attempt_of(name) is not None else found[1]


def run_child_name(run: str, suffix: str) -> str:
    """The name of a child that belongs to the run as a whole, such as its NetworkPolicy."""
    return f"{_run_part(run)}-{suffix}"


def _run_part(run: str) -> str:
    if len(run) <= _MAX_RUN_PART:
        return run
    digest = hashlib.sha256(run.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{run[: _MAX_RUN_PART - _HASH_DIGITS - 1].rstrip('-')}-{digest}"
