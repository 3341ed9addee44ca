"""Numbers as people write them. Exact: fractions, so that no rounding decides who is right.

Read are signs, thousands (1,234), decimals, exponents (1e5), percent (50% is 1/2), fractions (3/4, \\frac{3}{4}) and a currency in
front. What may be read in two ways is not read as one number: mixed numbers, dates, 1.234,56, 1 234, 10^3.
"""

from __future__ import annotations

import re
from fractions import Fraction

_DIGITS = "[0-9]{1,100}"
#: What a number directly behind it would be a part of: a name (x1, H2O), or a version (1.2.3).
_BEFORE = r"(?<![0-9A-Za-z_])(?<![0-9]\.)"
#: Behind an operand it is an operator, or the hyphen of a date.
_SIGN = r"(?:(?<![0-9A-Za-z_)\]}.%])(?P<sign>[-+\u2212]))?(?:\\?[$\u20ac\u00a3])?"
_FRACTION = rf"(?<!/)(?P<over>{_DIGITS})/(?P<under>{_DIGITS})(?![0-9/])(?![.,][0-9])"
_LATEX_FRACTION = rf"\\[dt]?frac ?\{{ ?(?P<latex_over>-?{_DIGITS}) ?\}} ?\{{ ?(?P<latex_under>{_DIGITS}) ?\}}"
_DECIMAL = (
    rf"(?:(?P<whole>[0-9]{{1,3}}(?:,[0-9]{{3}}){{1,33}}(?!,?[0-9])|{_DIGITS}(?![0-9]))(?P<part>\.{_DIGITS}(?![0-9]))?"
    rf"|(?<!\.)(?P<bare>\.{_DIGITS}(?![0-9])))(?P<exponent>[eE][-+]?[0-9]{{1,3}}(?![0-9]))?(?P<percent> ?\\?%)?"
)
_NUMBER = re.compile(rf"{_SIGN}(?:{_LATEX_FRACTION}|{_BEFORE}(?:{_FRACTION}|{_DECIMAL}))")
#: A comma of thousands in LaTeX.
_LATEX_COMMA = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|\\,)(?=[0-9]{3})")


def number_of(text: str) -> Fraction | None:
    """The number that the text is, apart from blanks around it and the dollars of LaTeX; None where it is none."""
    text = text.strip()
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = text[1:-1].strip()
    found = _NUMBER.fullmatch(_LATEX_COMMA.sub(",", text))
    return None if found is None else _value(found)


def last_number(text: str) -> Fraction | None:
    """The last one in the text; None where there is none, or it divides by zero. Linear in the length."""
    found = None
    for found in _NUMBER.finditer(_LATEX_COMMA.sub(",", text)):  # noqa: B007 (the last one is wanted)
        pass
    return None if found is None else _value(found)


def _value(found: re.Match[str]) -> Fraction | None:
    over, under = found["over"] or found["latex_over"], found["under"] or found["latex_under"]
    if over is not None:
        if not int(under):
            return None
        value = Fraction(int(over), int(under))
    else:
        digits = (found["whole"] or "").replace(",", "") + (found["part"] or found["bare"] or "")
        value = Fraction(digits + (found["exponent"] or ""))
    if found["percent"]:
        value /= 100
    return -value if found["sign"] in ("-", "\u2212") else value
