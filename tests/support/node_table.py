"""What the faults on a real node came to, as a table of docs/reliability.md."""

from __future__ import annotations

from dataclasses import dataclass, field

from support.documents import ROOT, replace_between

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
        replace_between(DOCUMENT, _BEGIN, _END, str(self))
