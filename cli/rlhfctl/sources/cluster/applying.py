"""A manifest over a run that is there, as `kubectl apply` merges."""

from __future__ import annotations

from typing import Any


def merge_patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The RFC 7386 patch that makes `new` of `old`; empty where they are equal."""
    patch: dict[str, Any] = {}
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        patch[key] = merge_patch(before, after) if isinstance(before, dict) and isinstance(after, dict) else after
    return patch
