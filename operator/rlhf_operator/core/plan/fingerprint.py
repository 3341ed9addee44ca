"""The identity of a stage's artifact: equal work has an equal fingerprint, whoever computes it, wherever and when."""

from __future__ import annotations

import hashlib
from typing import Any

from rlhf_api.conventions.canonical import canonical_json
from rlhf_api.stage import FORMAT_VERSION, Work

#: Who may read a source does not change what is in it.
_NOT_IDENTITY = frozenset({"credentials"})


def fingerprint(work: Work, seed: int) -> str:
    """SHA-256 (64 hex digits) over the canonical JSON of the work, the seed and the stage's format version.

    Fields that hold their default are left out, so that a field added later with a default changes no fingerprint. Nothing of
    `Execution` (attempt, shards, ranks) is in it. A resolve stage carries the fingerprint of its target instead of its own.
    """
    body = work.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
    body["stage"] = work.stage.value
    identity = {"work": _identity(body), "seed": seed, "format": FORMAT_VERSION[work.stage]}
    return hashlib.sha256(canonical_json(identity)).hexdigest()


def _identity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _identity(item) for key, item in value.items() if key not in _NOT_IDENTITY}
    if isinstance(value, list):
        return [_identity(item) for item in value]
    return value
