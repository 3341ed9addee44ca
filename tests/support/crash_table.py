"""What a sweep over crash points found, as a table of docs/reliability.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from support.crash_points import Crash, FinalState, Moment, Outcome
from support.documents import ROOT, replace_between

DOCUMENT = ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- crash points: make test-crash-points -->\n", "<!-- end of crash points -->\n"
_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "replace", "DELETE": "delete"}
_HEAD = "| run | the write | killed before | killed after | arrives late |\n| --- | --- | ---: | ---: | ---: |"


def table(found: Mapping[str, tuple[FinalState, Sequence[Outcome]]], seconds: float) -> str:
    """By the name of a scenario: its undisturbed end, and the runs. Crashes by kind of write, and lines with the sums."""
    lines, sums = [_HEAD], []
    for name, (reference, outcomes) in found.items():
        crashes = Counter((_kind(crash), crash.moment) for outcome in outcomes for crash in outcome.crashes)
        lines += [
            f"| {name} | {kind} | {' | '.join(str(crashes[kind, moment]) for moment in Moment)} |"
            for kind in sorted({kind for kind, _ in crashes})
        ]
        wrong = sum(bool(outcome.differences(reference)) for outcome in outcomes)
        most = max(len(outcome.crashes) for outcome in outcomes)
        sums.append(
            f"{name[0].upper()}{name[1:]}: {crashes.total()} crashes in {len(outcomes)} runs, at most {most} in one; "
            f"{wrong} of the runs were not as they must be at their end."
        )
    return "\n".join([*lines, "", *sums, f"It took {seconds / 60:.0f} minutes."]) + "\n"


def write_into_document(text: str) -> None:
    replace_between(DOCUMENT, _BEGIN, _END, text)


def _kind(crash: Crash) -> str:
    return f"{_VERBS[crash.write.method]} {crash.write.resource}"
