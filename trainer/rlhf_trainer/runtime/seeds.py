"""Seeds of what is random in a stage."""

from __future__ import annotations

import hashlib


def hashed_seed(*parts: object) -> int:
    """A 63-bit hash of what tells one use from all others. Never a sum: base + index collides across prompts, and across runs."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
