"""Byte pairs as tiktoken has them, by rank, as a tokenizer of Hugging Face's: what makers publish their vocabularies as."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_ranks(file: Path) -> dict[bytes, int]:
    """Of a `.tiktoken` file: a token in base64 and its rank a line."""
    pairs = (line.split() for line in file.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def byte_pair_tokenizer(ids: Mapping[bytes, int], controls: Mapping[str, int], pattern: str, *, normalizer: Any = None) -> Any:
    """A `tokenizers.Tokenizer`; it takes some seconds. ids, controls: of tokens, those of `ids` in the order of their ranks.

    Merges are found as tiktoken finds them: by the rank of what they make; and what is a token whole is one.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocabulary = {**controls, **{spelled(token): number for token, number in ids.items()}}
    merges = [(spelled(left), spelled(right)) for left, right in _merges(ids)]
    found = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    if normalizer is not None:
        found.normalizer = normalizer
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    found.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    found.decoder = decoders.ByteLevel()
    found.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in controls])
    return found


def _merges(ids: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    found: list[tuple[int, int, int, bytes, bytes]] = []
    for token, number in ids.items():
        halves = ((token[:place], token[place:]) for place in range(1, len(token)))
        found += [(number, ids[left], ids[right], left, right) for left, right in halves if left in ids and right in ids]
    return [(left, right) for *_, left, right in sorted(found)]
