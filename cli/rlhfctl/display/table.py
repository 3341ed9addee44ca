"""A plain table: columns two spaces apart, as kubectl's."""

from __future__ import annotations

from collections.abc import Sequence


def rows(header: Sequence[str], body: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), width: int = 0) -> list[str]:
    """Lines of a table; columns in `right` are right-aligned; with `width`, the last column is cut to fit."""
    widths = [max(len(row[column]) for row in (header, *body)) for column in range(len(header))]
    return [_line(row, widths, right, width) for row in (header, *body)]


def _line(row: Sequence[str], widths: Sequence[int], right: frozenset[int], width: int) -> str:
    cells = [
        cell.rjust(size) if column in right else cell.ljust(size)
        for column, (cell, size) in enumerate(zip(row, widths, strict=True))
    ]
    text = "  ".join(cells).rstrip()
    return text[: width - 1] + "…" if width and len(text) > width else text
