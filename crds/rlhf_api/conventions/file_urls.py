"""file:// URLs, as every part of the program writes and reads them: what stands after the scheme is the path, letter for letter.

No letter is special, so a folder may be called `run #3`, `50%` or `why?`. That is how people write them in a manifest.
"""

from __future__ import annotations

from pathlib import Path

_SCHEME = "file://"


def file_url(path: Path) -> str:
    """Of an absolute path."""
    return f"{_SCHEME}{path}"


def file_path(url: str) -> Path:
    """The path that a file:// URL names. Raises ValueError for any other URL, and for one that names a host or no absolute path."""
    path = url.removeprefix(_SCHEME)
    if path == url or not path.startswith("/"):
        raise ValueError(f"{url!r} is no URL of a local file; write file:///folder")
    return Path(path)
