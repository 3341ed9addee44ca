"""Optional fields that are set wherever the schema's rules hold: told apart from the None that a type checker sees."""

from __future__ import annotations

from typing import TypeVar

_T = TypeVar("_T")


def present(value: _T | None, what: str) -> _T:
    """`value`. Raises TypeError where it is None: validation lets no such manifest through, so the caller is wrong."""
    if value is None:
        raise TypeError(f"{what} is absent")
    return value
