"""Write the table of values in the chart's README from the comments of its values.yaml: `python tools/chart_docs.py`.

With --check: exit 1 where it differs. A value is documented by the comment right above it, or by those of everything below it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent.parent / "charts" / "rlhf-operator"
VALUES = CHART / "values.yaml"
PAGE = CHART / "README.md"
_BEGIN, _END = "<!-- generated: values -->\n", "<!-- end -->"


@dataclass(frozen=True)
class Value:
    path: str
    """As `--set` takes it: image.tag."""
    default: Any
    meaning: str


class UndocumentedValueError(Exception):
    pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the README is not what would be written")
    check = parser.parse_args().check
    before = PAGE.read_text(encoding="utf-8")
    after = filled(before, documented(VALUES.read_text(encoding="utf-8")))
    if not check:
        PAGE.write_text(after, encoding="utf-8")
        return 0
    if before == after:
        return 0
    sys.stderr.write("The table of charts/rlhf-operator/README.md is not what values.yaml says; run: python tools/chart_docs.py\n")
    return 1


def documented(text: str) -> list[Value]:
    """The values of a values.yaml, in its order. Raises UndocumentedValueError: the path of a value that no comment explains."""
    comments = dict(_commented(text))
    return list(_values(yaml.safe_load(text), comments, ()))


def filled(page: str, values: list[Value]) -> str:
    """The page with the table between its markers written anew. Raises ValueError where they are not there."""
    head, _, rest = page.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not end:
        raise ValueError(f"no markers for the table: {_BEGIN.strip()} {_END}")
    rows = [(f"`{value.path}`", f"`{_written(value.default)}`", value.meaning) for value in values]
    lines = [("value", "default", "what it is"), ("---", "---", "---"), *rows]
    table = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    return head + _BEGIN + table + end + tail


_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):(?: |$)")


def _commented(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, comment) of each key in block style that has comment lines right above it."""
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.lstrip().removeprefix("#").strip())
            continue
        if key := _KEY.match(line):
            path = [*path[: len(key["indent"]) // 2], key["key"]]
            if comment:
                yield tuple(path), " ".join(comment)
        comment = []


def _values(tree: dict[str, Any], comments: dict[tuple[str, ...], str], above: tuple[str, ...]) -> Iterator[Value]:
    for key, value in tree.items():
        path = (*above, key)
        if path in comments:
            yield Value(".".join(path), value, comments[path])
        elif isinstance(value, dict) and value:
            yield from _values(value, comments, path)
        else:
            raise UndocumentedValueError(".".join(path))


def _written(default: Any) -> str:
    return json.dumps(default, separators=(", ", ": "), ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
