"""One text for one value: what digests and fingerprints are taken over."""

from __future__ import annotations

import json


def canonical_json(value: object) -> bytes:
    """Keys sorted, no white space, UTF-8. Raises ValueError for NaN and the infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
