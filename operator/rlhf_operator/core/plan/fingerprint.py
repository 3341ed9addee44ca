"""The identity of a stage's artifact: equal work has an equal fingerprint, whoever computes it, wherever and when."""

from __future__ import annotations

import hashlib

from rlhf_api.conventions.canonical import canonical_json, without_credentials
from rlhf_api.stage import FORMAT_VERSION, Work


def fingerprint(work: Work, seed: int) -> str:
    """SHA-256 (64 hex digits) over the canonical JSON of the work, the seed and the stage's format version.

    Fields that hold their default are left out, so that a field added later with a default changes no fingerprint. Nothing of
    `Execution` (attempt, shards, ranks) is in it. A resolve stage carries the fingerprint of its target instead of its own.
    """
    body = work.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
    body["stage"] = work.stage.value
    identity = {"work": without_credentials(body), "seed": seed, "format": FORMAT_VERSION[work.stage]}
    return hashlib.sha256(canonical_json(identity)).hexdigest()
