"""Held-out prompts, as what is trained on is compared with them: by what the policy reads of both, and by their words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from .messages import Message, Tools
from .prompts import Identify, Prompt, PromptSets
from .rows import Unusable, shown

#: Jaccard similarity of their shingles from which on two prompts are nearly one.
NEAR = 0.8
#: Words of a prompt from which on one of them may be another: a shingle is a word, and from LONG on three words in a row, which
#: keep their order. In a shorter prompt than SHORT another word makes another question: only the same words in order are near.
SHORT, LONG = 9, 29
#: What more than this share of the held-out prompts have, and more than so many, tells none of them from the others: a preamble,
#: the form of an exercise.
COMMON, COMMON_AT_LEAST = 0.05, 5
#: MinHash LSH: of pairs at NEAR, 1 - (1 - 0.8^5)^25 share a band of their sketches, all but 5 in 100,000. One seed for ever: equal
#: work has equal counts.
_BANDS, _BAND_SIZE, _SEED = 25, 5, 1
#: Share of equal numbers in two sketches from which on their shingles are compared, four standard errors below NEAR: what is alike
#: by half, as exercises of one form are, shares bands, too, and comparing all of it would take minutes.
_LIKELY = 0.65
#: Han, kana and Thai have no blanks between words; a sign is one. An operator between numbers is no punctuation.
_ALONE = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+|(?:(?<=\d)|(?<=\d ))[-+*/^<=>\u00d7\u00f7\u2212](?= ?\d)")


class Found(Enum):
    """What a conversation asks of what is held out."""

    NOTHING = "nothing"
    NEAR = "near"
    SAME = "same"


class HeldOutPrompts:
    """Validation and test. What is compared with them is not kept; of each of themselves some 20 kB are, at 50 words."""

    def __init__(self, sets: PromptSets, identify: Identify) -> None:
        self._held = (*sets.validation, *sets.test)
        self._identify = identify
        self._ids = {prompt.id for prompt in self._held}
        self._with_tools = any(prompt.tools is not None for prompt in self._held)
        self._last_turns = {_words(prompt.messages[-1]["content"]) for prompt in self._held}

    def has(self, messages: Sequence[Message], tools: Tools = None) -> bool:
        """Whether it is one of them, with these tools or without."""
        # Rendering is dear. A template may drop what was said before, the reasoning of earlier turns; the last turn it writes.
        if _words(messages[-1]["content"]) not in self._last_turns:
            return False
        return self._is_one(messages) or (self._with_tools and tools is not None and self._is_one(messages, tools))

    def _is_one(self, messages: Sequence[Message], tools: Tools = None) -> bool:
        try:
            return self._identify(messages, tools) in self._ids
        except Unusable:
            # What the policy cannot be asked, it was not asked.
            return False

    def near(self, messages: Sequence[Message]) -> Prompt | None:
        """The first of them that is nearly the same question, whatever a system turn says beside it.

        It has the same words in the same order; or at least NEAR of both prompts' shingles are the same, of all of them and of
        those that are not common to held-out prompts. Candidates come from MinHash, and each is compared: none is told in error.
        """
        found = self._index.find(words_of(messages))
        return None if found is None else self._held[found]

    def index(self) -> None:
        """Builds what `near` looks things up in, so that processes that are forked share it."""
        _ = self._index

    @cached_property
    def _index(self) -> _Index:
        return _Index([words_of(prompt.messages) for prompt in self._held])


@dataclass
class Overlap:
    """What of a source asks what is held out. asked: conversations; same, near: of them; first: the first near one, in words."""

    asked: int = 0
    same: int = 0
    near: int = 0
    first: str = ""

    @property
    def trained(self) -> int:
        return self.asked - self.same

    def add(self, other: Overlap) -> None:
        """Of conversations behind those of this one."""
        self.asked += other.asked
        self.same += other.same
        self.near += other.near
        self.first = self.first or other.first

    def look(self, where: str, asked: Sequence[Sequence[Message]], held_out: HeldOutPrompts, tools: Tools = None) -> Found:
        """Counts one conversation. `where` it stands, the questions that it answers, and its tools."""
        self.asked += 1
        if any(held_out.has(question, tools) for question in asked if question):
            self.same += 1
            return Found.SAME
        pairs = [(question, prompt) for question in asked if (prompt := held_out.near(question)) is not None]
        if not pairs:
            return Found.NOTHING
        self.near += 1
        self.first = self.first or _told(where, *pairs[0])
        return Found.NEAR


def _told(where: str, question: Sequence[Message], prompt: Prompt) -> str:
    return f"{where} asks {shown(question[-1]['content'])}, and {prompt.where} {shown(prompt.messages[-1]['content'])}"


class _Index:
    """Prompts by their words, in order, and by their shingles. Answers are places in the list."""

    def __init__(self, prompts: Sequence[Sequence[str]]) -> None:
        self._longest = max(map(len, prompts), default=0)
        self._places: dict[str, int] = {}
        for place, words in enumerate(prompts):
            self._places.setdefault(" ".join(words), place)
        several = {place: words for place, words in enumerate(prompts) if len(words) >= SHORT}
        self._rows = _Shingles(several, 3, at_least=LONG - 2)
        self._words = _Shingles({place: words for place, words in several.items() if place not in self._rows}, 1)

    def find(self, words: Sequence[str]) -> int | None:
        # Near ones are about as long, and a long conversation is asked for turn by turn.
        if len(words) > 2 * self._longest:
            return None
        same = self._places.get(" ".join(words))
        if same is not None:
            return same
        found = [place for index in (self._rows, self._words) if (place := index.find(words)) is not None]
        return min(found, default=None)


class _Shingles:
    """Prompts by what `size` words in a row they have, as hashes of 64 bits; those that have `at_least` so many of their own."""

    def __init__(self, prompts: Mapping[int, Sequence[str]], size: int, at_least: int = 1) -> None:
        self._size = size
        shingles = {place: _shingles(words, size) for place, words in prompts.items()}
        having = Counter(shingle for found in shingles.values() for shingle in found)
        many = max(COMMON_AT_LEAST, COMMON * len(prompts))
        self._common = frozenset(shingle for shingle, count in having.items() if count > many)
        self._of = {place: found for place, found in shingles.items() if len(found - self._common) >= at_least}
        self._places = list(self._of)
        if not self._of:
            return
        # Slow to import, and most stages compare nothing.
        from datasketch import MinHash, MinHashLSH

        numbers = _BANDS * _BAND_SIZE
        self._blank = MinHash(numbers, seed=_SEED, hashfunc=_low_bits)
        self._bands = MinHashLSH(num_perm=numbers, params=(_BANDS, _BAND_SIZE))
        self._sketches = np.empty((len(self._of), numbers), dtype=np.uint32)
        for row, found in enumerate(self._of.values()):
            sketch = self._sketch(found - self._common)
            self._sketches[row] = sketch.hashvalues
            self._bands.insert(row, sketch, check_duplication=False)

    def __contains__(self, place: int) -> bool:
        return place in self._of

    def find(self, words: Sequence[str]) -> int | None:
        """The first that is near."""
        if not self._of:
            return None
        shingles = _shingles(words, self._size)
        own = shingles - self._common
        if not own:
            return None
        sketch = self._sketch(own)
        rows = np.sort(np.array(self._bands.query(sketch), dtype=np.int64))
        likely = rows[(self._sketches[rows] == sketch.hashvalues).mean(axis=1) >= _LIKELY]
        return next((place for row in likely if self._is_near(place := self._places[row], shingles)), None)

    def _is_near(self, place: int, shingles: frozenset[int]) -> bool:
        other = self._of[place]
        return _alike(other, shingles) and _alike(other - self._common, shingles - self._common)

    def _sketch(self, shingles: frozenset[int]) -> Any:
        sketch = self._blank.copy()
        sketch.update_batch(shingles)
        return sketch


def words_of(messages: Sequence[Message]) -> list[str]:
    """Of what users and assistants say, as they are compared: NFKC, case folded, without punctuation."""
    return [word for message in messages if message["role"] not in ("system", "developer") for word in _words(message["content"])]


@lru_cache(maxsize=256)
def _words(text: str) -> tuple[str, ...]:
    """A conversation is asked for turn by turn, and each time it begins with the former turns."""
    found = tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))
    return found or tuple(text.split())


def _shingles(words: Sequence[str], size: int) -> frozenset[int]:
    rows = set(zip(*(words[first:] for first in range(size)), strict=False))
    return frozenset(int.from_bytes(blake2b(" ".join(row).encode(), digest_size=8).digest(), "little") for row in rows)


def _low_bits(shingle: int) -> int:
    return shingle & 0xFFFFFFFF


def _alike(one: frozenset[int], other: frozenset[int]) -> bool:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) >= NEAR
