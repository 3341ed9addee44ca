"""What the faults on a real node came to, as a table of docs/reliability.md."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from support.documents import ROOT, between, replace_between

DOCUMENT = ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- faults on a node: make e2e-faults -->\n", "<!-- end of faults on a node -->\n"
_HEAD = "| what happened | to | pods | infrastructure retries | application retries |\n| --- | --- | ---: | ---: | ---: |"


@dataclass
class Table:
    rows: list[str] = field(default_factory=list)

    def add(self, what: str, where: str, pods: int, infrastructure: int, application: int = 0) -> None:
        """What the stage had used when its run was over."""
        self.rows.append(f"| {what} | {where} | {pods} | {infrastructure} | {application} |")

    def __str__(self) -> str:
        return "\n".join([_HEAD, *self.rows]) + "\n"

    def write_into_document(self) -> None:
        """In the place of what the document says of the same; what was not run now stays as it was."""
        there = between(DOCUMENT, _BEGIN, _END).splitlines()
        rows = {_key(row): row for row in there if row.startswith("| ") and row not in _HEAD}
        rows |= {_key(row): row for row in self.rows}
        replace_between(DOCUMENT, _BEGIN, _END, str(Table(list(rows.values()))))


def _key(row: str) -> tuple[str, ...]:
    """What happened to which stage, however often."""
    return tuple(re.sub(r"\d+", "", cell) if "killed, " in cell else cell for cell in row.split(" | ")[:2])
