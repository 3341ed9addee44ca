"""One text for one value: what digests and fingerprints are taken over."""

from __future__ import annotations

import json
from typing import Any


def canonical_json(value: object) -> bytes:
    """Keys sorted, no white space, UTF-8. Raises ValueError for NaN and the infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


#: Who may read a source does not change what is in it.
_NOT_IDENTITY = frozenset({"credentials"})


def without_credentials(value: Any) -> Any:
    """A value on the wire form, as identities are taken over it."""
    if isinstance(value, dict):
        return {key: without_credentials(item) for key, item in value.items() if key not in _NOT_IDENTITY}
    if isinstance(value, list):
        return [without_credentials(item) for item in value]
    return value
