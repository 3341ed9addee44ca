"""The lock under which torch compiles and loads an extension, held by the kernel. On a CPU DeepSpeed loads one in every training.

torch's own is a file that exists: whoever is killed while it holds it leaves it behind, and every later training of this user waits
for it, for ever and without a word.
"""

from __future__ import annotations

import fcntl
import os

import torch.utils.cpp_extension


class KernelBaton:
    """What torch.utils.file_baton.FileBaton offers; a process that is gone holds nothing."""

    def __init__(self, lock_file_path: str) -> None:
        self._path = f"{lock_file_path}.flock"
        self._fd: int | None = None

    def try_acquire(self) -> bool:
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def wait(self) -> None:
        """Until nobody holds it."""
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        # Not inherited by the compiler, which may outlive whoever started it.
        return os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)


def use_kernel_baton() -> None:
    """For all extensions that this process loads from now on."""
    torch.utils.cpp_extension.FileBaton = KernelBaton  # type: ignore[attr-defined,assignment]
