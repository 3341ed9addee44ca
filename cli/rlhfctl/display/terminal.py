"""What a stream can show: colour, width, glyphs. Colour never stands alone: a glyph and a word always say the same."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_ASCII = str.maketrans(
    {"✓": "+", "✗": "x", "●": "*", "○": "o", "‖": "=", "◌": ".", "⊘": "/", "…": "~", "·": "-", "★": "*", "π": "p", "→": ">"}
)


@dataclass(frozen=True)
class Terminal:
    """A stream as we write to it."""

    stream: TextIO
    is_tty: bool
    colour: bool
    unicode: bool
    width: int

    def paint(self, text: str, *styles: str) -> str:
        """`text` with colour where the stream has it."""
        if not self.colour or not styles:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        """Write one line, as `write` does."""
        self.write(text + "\n")

    def write(self, text: str) -> None:
        """As it is; glyphs that the stream's encoding lacks become ASCII."""
        if not self.unicode:
            text = text.translate(_ASCII).encode("ascii", "replace").decode()
        self.stream.write(text)
        self.stream.flush()

    def wrapped(self, text: str, label: str, *styles: str) -> None:
        """Write `text` behind a painted label, broken at spaces to the width; words longer than a line stay whole."""
        lines = textwrap.wrap(text, max(min(self.width, 100) - len(label), 20), break_long_words=False, break_on_hyphens=False) or [
            ""
        ]
        self.line(self.paint(label.rstrip(), *styles) + label[len(label.rstrip()) :] + lines[0])
        for line in lines[1:]:
            self.line(" " * len(label) + line)


def stdout() -> Terminal:
    """Where data goes."""
    return of(sys.stdout, os.environ)


def stderr() -> Terminal:
    """Where everything else goes."""
    return of(sys.stderr, os.environ)


def of(stream: TextIO, env: Mapping[str, str]) -> Terminal:
    is_tty = stream.isatty()
    colour = is_tty and not env.get("NO_COLOR") and env.get("TERM") != "dumb"
    unicode = (stream.encoding or "ascii").lower().replace("-", "") in ("utf8", "utf16", "utf32")
    return Terminal(stream, is_tty, colour, unicode, _width(stream, env) if is_tty else 80)


def _width(stream: TextIO, env: Mapping[str, str]) -> int:
    columns = env.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


def say(text: str) -> None:
    """Beside the data: a connection that is lost, a run that waits for somebody."""
    stderr().wrapped(text, "! ", "yellow")
