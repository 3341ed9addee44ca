"""Files that are whole or absent: written beside, flushed, renamed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """A reader, and a restart after a crash or power loss, sees the old content or the new, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        # On a full disk, what was written of it is in the way of everything else.
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
