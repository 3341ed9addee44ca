"""Whatever a stage runs into has its exit code and its reason."""

from __future__ import annotations

import errno

import pytest

from rlhf_store import Corrupted, Incomplete, NoSuchBucket, NotFound, Unavailable
from rlhf_trainer.runtime.errors import ApplicationProblem, ConfigurationProblem, Preempted, RankKilled, Transient
from rlhf_trainer.runtime.failures import from_exception


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (ConfigurationProblem("x"), 64, "ConfigurationError"),
        (ApplicationProblem("x"), 1, "ApplicationError"),
        (Transient("x"), 75, "StoreUnavailable"),
        (Preempted("x"), 143, "Preempted"),
        (RankKilled("x"), 137, "Killed"),
        (Unavailable("x", "s3://b"), 75, "StoreUnavailable"),
        (NoSuchBucket("x", "s3://b"), 64, "ConfigurationError"),
        (Corrupted("x", "s3://b"), 1, "Corrupted"),
        (NotFound("x", "s3://b"), 1, "NotFound"),
        (Incomplete("x", "s3://b"), 64, "ConfigurationError"),
        (OSError(errno.ENOSPC, "No space left on device", "/scratch/x"), 1, "DiskFull"),
        (OSError(errno.EDQUOT, "Quota exceeded"), 1, "DiskFull"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "DiskFull"),
        (MemoryError(), 1, "OOMKilled"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "OOMKilled"),
        (ZeroDivisionError("division by zero"), 1, "ApplicationError"),
    ],
)
def test_every_end_has_its_exit_code_and_its_reason(error: Exception, code: int, reason: str) -> None:
    told = from_exception(error)
    assert (int(told.exit), told.reason) == (code, reason)


def test_a_full_disk_is_named() -> None:
    assert "/scratch/x" in str(from_exception(OSError(errno.ENOSPC, "No space left on device", "/scratch/x")))
