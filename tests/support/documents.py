"""The documents of the repository, and what stands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Chapters whose commands need a cluster. tests/docs/test_cluster_stories.py goes through each from its beginning to its end.
CLUSTER_STORIES = (("README.md", "In a cluster"), ("docs/kubernetes.md", "In a cluster"))
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: ```console and what stands in it."""

    document: str
    language: str
    text: str


def documents() -> list[Path]:
    chart = ROOT / "charts" / "rlhf-operator" / "README.md"
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", chart, *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def text_of(*names: str) -> str:
    """Of the documents of these names; of all of them without names."""
    chosen = [ROOT / name for name in names] or documents()
    return "\n".join(path.read_text(encoding="utf-8") for path in chosen)


def blocks(language: str | None = None) -> list[Block]:
    """Of all documents, in order; of one language where it is given."""
    texts = ((name_of(document), document.read_text(encoding="utf-8")) for document in documents())
    found = [Block(name, match[1].strip(), match[2]) for name, text in texts for match in _FENCE.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def commands() -> list[tuple[str, str]]:
    """(document, command) of every line that begins with `$ ` in a console block."""
    return [
        (block.document, line.removeprefix("$ "))
        for block in blocks("console")
        for line in block.text.splitlines()
        if line.startswith("$ ")
    ]


def story(document: str, heading: str) -> list[str]:
    """The commands of one chapter of a document, in order: from the heading of this text to the next of its level."""
    text = (ROOT / document).read_text(encoding="utf-8")
    (begin,) = re.finditer(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    chapter = re.split(rf"^{begin[1]} ", text[begin.end() :], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for match in _FENCE.finditer(chapter) if match[1].strip() == "console" for line in match[2].splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def links() -> list[tuple[str, str]]:
    """(document, target) of every link that stays in the repository."""
    found = []
    for document in documents():
        text = _FENCE.sub("", document.read_text(encoding="utf-8"))
        found += [(name_of(document), target) for target in _LINK.findall(text) if "://" not in target]
    return found


def anchors(document: Path) -> set[str]:
    """What headings can be linked by, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def between(document: Path, begin: str, end: str) -> str:
    """What stands between two lines of a document."""
    _, found, rest = document.read_text().partition(begin)
    assert found, f"{document} has no line {begin}"
    return rest.partition(end)[0]


def replace_between(document: Path, begin: str, end: str, text: str) -> None:
    """`text` in the place of that."""
    before, found, rest = document.read_text().partition(begin)
    assert found, f"{document} has no line {begin}"
    _, found, after = rest.partition(end)
    assert found, f"{document} has no line {end}"
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")
