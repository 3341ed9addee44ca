"""What may stand in `judge.prompt`: agreed between validation, which looks for it, and the judge, which fills it in."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: The conversation; the two responses to its last turn; and a word that neither can hold, to tell where they begin and end.
PLACEHOLDERS = ("prompt", "responseA", "responseB", "mark")
#: Of a prompt that has any.
REQUIRED = ("prompt", "responseA", "responseB")

_PLACEHOLDER = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")


def placeholders_of(text: str) -> list[str]:
    """The names in braces, known or not, in order. Braces around anything else, such as JSON, are text."""
    return _PLACEHOLDER.findall(text)


def filled(text: str, values: Mapping[str, str]) -> str:
    """In one go: what a value holds is text, also where it looks like a placeholder. Unknown ones stay as they are."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)
