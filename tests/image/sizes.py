"""Where the image's bytes are: a table for docs/image.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from image import builder

_PACKAGES = "opt/rlhf/lib"
_LARGEST = 16


def table(tag: str) -> str:
    """In megabytes, of apparent size: what a pull without compression transfers."""
    with builder.mounted(tag) as root:
        [packages] = (root / _PACKAGES).glob("python*/site-packages")
        rows = [
            ("Debian", sum(_bytes(root / name) for name in ("usr", "var", "etc"))),
            ("Python packages", _bytes(root / "opt/rlhf")),
            *(("- " + name, size) for name, size in _largest(packages)),
            ("the project", _bytes(root / "opt/project")),
        ]
        rows.append(("all", _bytes(root)))
    return "\n".join(["| part | MB |", "| --- | ---: |", *(f"| {name} | {size / 1e6:,.0f} |" for name, size in rows)])


def _largest(packages: Path) -> Iterator[tuple[str, int]]:
    sizes = sorted(((_bytes(path), path.name) for path in packages.iterdir()), reverse=True)
    yield from ((name, size) for size, name in sizes[:_LARGEST])
    yield f"{len(sizes) - _LARGEST} more", sum(size for size, _ in sizes[_LARGEST:])


def _bytes(path: Path) -> int:
    """Of a file, or of all files below a folder; each once, however many names it has."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    seen: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(path):
        for name in names:
            found = (Path(folder) / name).lstat()
            seen[found.st_dev, found.st_ino] = found.st_size
    return sum(seen.values())
