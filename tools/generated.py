"""What the tools share that write a page, or a part of one, from the code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def write_or_check(page: Path, text: Callable[[], str], described: str | None, source: str) -> int:
    """Write `text()` to `page`; with --check write nothing, and return 1 where it differs. `source` says what it comes from."""
    name, tool = page.relative_to(ROOT), Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(description=described)
    parser.add_argument("--check", action="store_true", help=f"write nothing; exit 1 where {name} is not what would be written")
    check = parser.parse_args().check
    after = text()
    if not check:
        page.parent.mkdir(exist_ok=True)
        page.write_text(after, encoding="utf-8")
        return 0
    if page.exists() and page.read_text(encoding="utf-8") == after:
        return 0
    sys.stderr.write(f"{name} is not what {source} says; run: python tools/{tool}\n")
    return 1


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
