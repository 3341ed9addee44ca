"""Write the table of values in the chart's README from the comments of its values.yaml: `python tools/chart_docs.py`.

With --check: exit 1 where it differs. A value is documented by the comment right above it, or by those of everything below it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from generated import ROOT, table, write_or_check

CHART = ROOT / "charts" / "rlhf-operator"
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


def page() -> str:
    return filled(PAGE.read_text(encoding="utf-8"), documented(VALUES.read_text(encoding="utf-8")))


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
    return head + _BEGIN + table(("value", "default", "what it is"), rows) + end + tail


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
    sys.exit(write_or_check(PAGE, page, __doc__, "values.yaml"))
