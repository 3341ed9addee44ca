"""What the file system says, in the words of `errors`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import DiskFull, NotWritable, StoreError, Unavailable


@contextmanager
def local_errors(where: str) -> Iterator[None]:
    """Around writing to a file of this machine: only what carries an errno is of the file system."""
    try:
        yield
    except PermissionError as error:
        raise NotWritable("this user may not write there", where) from error
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError) or error.errno is None:
            raise
        raise translate_local(error, where) from error


def translate_local(error: OSError, where: str) -> StoreError:
    what = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(f"no room to write ({what})", where)
    if error.errno == errno.EROFS:
        return NotWritable("the file system is read-only", where)
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return NotWritable("a file is in the way, where a folder should be", where)
    if error.errno == errno.ENOENT:
        return NotWritable("its folder cannot be made", where)
    if error.errno in (errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN):
        return Unavailable(f"the file system is away ({what})", where)
    return StoreError(what, where, "Check the folder and its disk.")
