"""What a sweep over crash points found, as a table of docs/reliability.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from support.api_proxy import Asked
from support.crash_points import Crash, Moment
from support.documents import ROOT

DOCUMENT = ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- crash points: make test-crash-points -->\n", "<!-- end of crash points -->\n"
_VERBS = {"POST": "create", "PATCH": "apply", "PUT": "replace", "DELETE": "delete"}
_HEAD = "| run | the write | killed before | killed after | not as it must be |\n| --- | --- | ---: | ---: | ---: |"


@dataclass(frozen=True)
class Row:
    """One case. `at`: None where the run had ended before so many writes."""

    scenario: str
    crash: Crash | None
    at: Asked | None
    differences: tuple[str, ...]


def table(rows: Sequence[Row], seconds: float) -> str:
    """Cases by run and kind of write, and a line with the sums."""
    lines, hit = [_HEAD], [row for row in rows if row.at is not None and row.crash is not None]
    groups = sorted({(row.scenario, _kind(row)) for row in hit}, key=lambda group: [row.scenario for row in rows].index(group[0]))
    for scenario, kind in groups:
        cases = [row for row in hit if (row.scenario, _kind(row)) == (scenario, kind)]
        moments = Counter(row.crash.moment for row in cases if row.crash is not None)
        wrong = sum(bool(row.differences) for row in cases)
        lines.append(f"| {scenario} | {kind} | {moments[Moment.BEFORE]} | {moments[Moment.AFTER]} | {wrong} |")
    wrong = sum(bool(row.differences) for row in rows)
    lines.append(f"\n{len(hit)} crashes, each in a run of its own; {wrong} runs not as they must be; {seconds / 60:.0f} minutes.")
    return "\n".join(lines) + "\n"


def write_into_document(text: str) -> None:
    before, _, rest = DOCUMENT.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    DOCUMENT.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")


def _kind(row: Row) -> str:
    assert row.at is not None
    return f"{_VERBS[row.at.method]} {row.at.resource}"
