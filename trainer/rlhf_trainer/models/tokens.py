"""Text to token ids, with the places in the text where they begin and end."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import itemgetter
from typing import Any

from rlhf_trainer.runtime.errors import ConfigurationProblem

from .templates import Guarded, TemplateRefusal


class BoundaryProblem(ConfigurationProblem):
    """One token holds the last of what stands before an answer, and the first of the answer."""


#: Letters that no vocabulary has by chance: Cyrillic of one old book, alchemy, a name in Tangut.
_RARE = "\ua66e \U0001f732 \U00017000"


@dataclass
class Written:
    """A text that a template wrote of `guarded`. encoding: the `tokenizers.Encoding` of it, where `Encoder.read_ahead` made it."""

    guarded: Guarded
    text: str
    encoding: Any | None = None


@dataclass(frozen=True)
class Encoded:
    """ids of a text. beginning(place): the index of the token that begins at the character `place` of it, where the token before it
    ends; None where there is none, or nobody says.
    """

    written: Written
    ids: list[int]
    beginning: Callable[[int], int | None]


class Inseparable(TemplateRefusal):
    """A text with a control token in it, which this tokenizer cannot read as letters."""


class UnknownLetters(TemplateRefusal):
    """A text for which the tokenizer has no tokens: it would write its one for whatever it does not know."""

    kind = "unknownLetters"


class Encoder:
    """A tokenizer that adds nothing of its own: BOS is what the template writes. controls: `Template.controls`."""

    def __init__(self, tokenizer: Any, controls: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        # Without the wrapper of transformers, which takes as long as the tokenizer itself.
        self._backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
        if self._backend is not None:
            # A tokenizer.json may come with either.
            self._backend.no_truncation()
            self._backend.no_padding()
        self._controls = re.compile("(" + "|".join(map(re.escape, controls)) + ")") if controls else None
        self._control_ids = {int(tokenizer.convert_tokens_to_ids(token)): token for token in controls}
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        normalizes = self._backend is not None and self._backend.normalizer is not None
        #: Whether text is normalised before control tokens are sought in it: other letters may become one.
        self.may_forge = normalizes and any(token.normalized and str(token.content) in controls for token in added)
        self._strips_right = {str(token.content) for token in added if token.special and token.rstrip}
        self._strips_left = {str(token.content) for token in added if token.special and token.lstrip}
        unknown = tokenizer.unk_token_id
        #: The id of what it does not know. None where it writes bytes instead: some call their end so, and never mean it.
        self.unknown = unknown if unknown in self._whole(_RARE)[0] else None

    def read_ahead(self, texts: Sequence[Written]) -> None:
        """What `encode` would ask the tokenizer of each, at once: an allocation for all takes less time than one for each."""
        if self._backend is None:
            return
        plain = [written for written in texts if not written.guarded.stand_ins]
        self._backend.encode_special_tokens = False
        encodings = self._backend.encode_batch([written.text for written in plain], add_special_tokens=False)
        for written, encoding in zip(plain, encodings, strict=True):
            written.encoding = encoding

    def encode(self, written: Written) -> Encoded:
        """Ids of what a template wrote: its own control tokens are control tokens, those in what people wrote are text.

        Raises ConfigurationProblem where the tokenizer cannot do that.
        """
        if any(character in written.text for character in written.guarded.stand_ins):
            self._require_separable(written)
            return self._pieces(written)
        if written.encoding is None:
            ids, encoding = self._whole(written.text)
        else:
            ids, encoding = written.encoding.ids, written.encoding
        if self.may_forge:
            self._require_own_controls(written.text, ids)
        return Encoded(written, ids, partial(_beginning_of, encoding))

    def require_known(self, ids: Sequence[int]) -> None:
        """Raises UnknownLetters."""
        if self.unknown is not None and (count := ids.count(self.unknown)):
            raise UnknownLetters(
                f"the tokenizer has no tokens for some of its letters or words: {count} of {len(ids)} tokens are "
                f"{self._tokenizer.convert_ids_to_tokens(self.unknown)!r}, and the model would never see what stands there"
            )

    def tokens_before(self, encoded: Encoded, place: int) -> int:
        """How many tokens end at or before the character `place`. Raises BoundaryProblem where one stands across it."""
        count, clean = self.tokens_within(encoded, place)
        if not clean:
            raise BoundaryProblem(
                "A token stands across the boundary between a question and its answer, so the assistant's tokens cannot be told. "
                "Set policy.chatTemplate to a template that ends a header with a control token or a line break."
            )
        return count

    def tokens_within(self, encoded: Encoded, place: int) -> tuple[int, bool]:
        """How many tokens lie before the character `place` whole, and whether the next one begins there."""
        if place <= 0:
            return 0, True
        if place >= len(encoded.written.text):
            return len(encoded.ids), True
        if (count := encoded.beginning(place)) is not None:
            return count, True
        # Offsets may leave blanks out: what the text before it is alone decides.
        return self._by_prefix(encoded, place)

    def _by_prefix(self, encoded: Encoded, place: int) -> tuple[int, bool]:
        written = encoded.written
        head, ids = self.encode(Written(written.guarded, written.text[:place])).ids, encoded.ids
        shared = next((i for i, (a, b) in enumerate(zip(head, ids, strict=False)) if a != b), min(len(head), len(ids)))
        return shared, shared == len(head)

    def _whole(self, text: str, *, split_controls: bool = False, inside: bool = False) -> tuple[list[int], Any | None]:
        """Ids of a text, and the `tokenizers.Encoding` that has their offsets; a list of them all would cost as much as the text's
        rendering. `inside`: of a text that stands behind another."""
        if self._backend is None:
            # A tokenizer warns of lengths that are none of its business.
            found = self._tokenizer(text, add_special_tokens=False, verbose=False, split_special_tokens=split_controls)
            return list(found["input_ids"]), None
        backend = self._inner if inside else self._backend
        backend.encode_special_tokens = split_controls
        encoding = backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding

    @cached_property
    def _inner(self) -> Any:
        """The tokenizer as it reads what stands behind a control token: some put a blank in front of a text, and nowhere else."""
        from tokenizers import Tokenizer

        if not prepends_first(self._tokenizer):
            return self._backend
        described = json.loads(self._tokenizer.backend_tokenizer.to_str())
        return Tokenizer.from_str(json.dumps(described | {"pre_tokenizer": _never_prepending(described["pre_tokenizer"])}))

    def _require_own_controls(self, text: str, ids: Sequence[int]) -> None:
        """Raises Inseparable where normalisation makes a control token of what people wrote, or undoes one of the template's."""
        written = Counter(self._controls.findall(text)) if self._controls is not None else Counter()
        read = Counter(self._control_ids[token] for token in ids if token in self._control_ids)
        undone = [token for token in written - read if read[token] or token in self._tokenizer.tokenize(f"a {token} a")]
        if forged := [*(read - written), *undone]:
            raise Inseparable(
                f"This tokenizer normalises a text before it looks for control tokens, and makes {forged[0]!r} of other letters in "
                "this one, or other letters of it. Remove them from the text."
            )

    def _require_separable(self, written: Written) -> None:
        """What is read in pieces must be read as the whole is. Without its control tokens, a text can be read both ways."""
        text = written.text
        for character in written.guarded.stand_ins:
            text = text.replace(character, "x")
        if self._pieces(Written(Guarded((), None), text)).ids != self._whole(text)[0]:
            raise _inseparable(written.guarded)

    def _pieces(self, written: Written) -> Encoded:
        """The stretches between the template's control tokens one by one: in them, no control token is one."""
        parts = self._controls.split(written.text) if self._controls is not None else [written.text]
        ids: list[int] = []
        offsets: list[tuple[int, int]] | None = []
        done = 0
        for number, part in enumerate(parts):
            own: list[tuple[int, int]] | None = [(0, len(part))]
            if number % 2:
                found = [int(self._tokenizer.convert_tokens_to_ids(part))]
            else:
                before, after = parts[max(number - 1, 0) : number], parts[number + 1 : number + 2]
                found, own = self._piece(written.guarded, part, before, after)
            ids += found
            offsets = None if own is None or offsets is None else offsets + [(done + start, done + end) for start, end in own]
            done += len(part)
        return Encoded(written, ids, partial(_beginning_at, offsets))

    def _piece(
        self, guarded: Guarded, part: str, before: Sequence[str], after: Sequence[str]
    ) -> tuple[list[int], list[tuple[int, int]] | None]:
        # A control token that strips blanks has them as its own.
        first = len(part) - len(part.lstrip()) if before and before[0] in self._strips_right else 0
        last = len(part.rstrip()) if after and after[0] in self._strips_left else len(part)
        if first >= last:
            return [], []
        piece, places = guarded.restored(part[first:last])
        ids, encoding = self._whole(piece, split_controls=True, inside=bool(before))
        if not self._control_ids.keys().isdisjoint(ids):
            raise _inseparable(guarded)
        if encoding is None:
            return ids, None
        offsets = encoding.offsets
        # A token in the midst of a stand-in ends behind it: it must not seem to stand before what begins there.
        ends = [places[end - 1] + 1 if end > start else places[end] for start, end in offsets]
        return ids, [(first + places[start], first + end) for (start, _), end in zip(offsets, ends, strict=True)]


def _beginning_of(encoding: Any | None, place: int) -> int | None:
    if encoding is None:
        return None
    index = encoding.char_to_token(place)
    if not index or encoding.token_to_chars(index)[0] != place or encoding.token_to_chars(index - 1)[1] != place:
        return None
    return int(index)


def _beginning_at(offsets: Sequence[tuple[int, int]] | None, place: int) -> int | None:
    if offsets is None:
        return None
    index = bisect_right(offsets, place, key=itemgetter(1))
    if not 0 < index < len(offsets) or offsets[index - 1][1] != place or offsets[index][0] != place:
        return None
    return index


def prepends_first(tokenizer: Any) -> bool:
    """Whether it puts a blank in front of a text, and not in front of what follows a control token: not `legacy`."""
    if not tokenizer.is_fast or tokenizer.backend_tokenizer.pre_tokenizer is None:
        return False
    described = json.loads(tokenizer.backend_tokenizer.pre_tokenizer.__getstate__())
    return bool(described != _never_prepending(described))


def _never_prepending(found: Any) -> Any:
    """The description of a pre-tokenizer, which prepends a blank to no text where it did to the first one of several."""
    if isinstance(found, Mapping):
        changed = {key: _never_prepending(item) for key, item in found.items()}
        return changed | {"prepend_scheme": "never"} if found.get("prepend_scheme") == "first" else changed
    return [_never_prepending(item) for item in found] if isinstance(found, list) else found


def _inseparable(guarded: Guarded) -> Inseparable:
    held = ", ".join(map(repr, guarded.stand_ins.values())) or "a control token"
    return Inseparable(
        f"The text holds {held}, which this tokenizer takes for its control token, and it cannot be made to read it as text. "
        "Remove it from the text."
    )
