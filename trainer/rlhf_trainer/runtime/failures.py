"""From what a stage ran into to how it ends, in words."""

from __future__ import annotations

import errno
import os

from rlhf_store import StoreError

from .errors import ApplicationProblem, ConfigurationProblem, StageError, Transient, first_line

#: The last two are torch.save's: its zip file breaks off at a write that failed.
_DISK_FULL = ("No space left on device", "os error 28", "os error 122", "PytorchStreamWriter failed writing", "] . unexpected pos ")


def from_store_error(error: StoreError) -> StageError:
    """What a store's refusal means for the stage."""
    if error.transient:
        return Transient(str(error))
    if error.configuration:
        return ConfigurationProblem(str(error))
    return ApplicationProblem(str(error), reason=type(error).__name__)


def from_os_error(error: OSError) -> StageError:
    """A full disk says so, and which one; the rest is told as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = error.filename or os.environ.get("RLHF_SCRATCH", "the scratch folder")
        return ApplicationProblem(
            f"No space left on the disk of {where}. Free some, or give the stage a larger scratch volume.", reason="DiskFull"
        )
    return ApplicationProblem(f"{type(error).__name__}: {error}")


def from_exception(error: Exception) -> StageError:
    """Everything else that a stage may run into, in words; the trace is for the log."""
    if isinstance(error, StageError):
        return error
    if isinstance(error, StoreError):
        return from_store_error(error)
    text = first_line(error, "no message")
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return ApplicationProblem(
            f"Out of memory: {text} Give the stage more; for training, lower train.tokenBudget or raise deepspeed.zeroStage, "
            "which helps once the model is loaded: each GPU holds all of it until then.",
            reason="OOMKilled",
        )
    if isinstance(error, OSError) and error.errno is not None:
        return from_os_error(error)
    # pyarrow, safetensors and torch tell of a full disk in words of their own.
    if any(word in str(error) for word in _DISK_FULL):
        return from_os_error(OSError(errno.ENOSPC, text))
    return ApplicationProblem(f"{type(error).__name__}: {text}. The log has the trace.")
