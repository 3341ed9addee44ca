"""The table of what people answered: a row an iteration, and of each iteration a row an annotator."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rlhfctl.figures import number
from rlhfctl.results.model import PeopleFigures

_NOTE = (
    "Pairs of responses that people compared. Answered: by as many as annotatorsPerPair asks for; tied: of those, without a "
    "majority. Krippendorff's alpha is their agreement beyond chance: 1 is perfect, 0 is chance."
)


def people_section(figures: Sequence[PeopleFigures]) -> str:
    if not figures:
        return ""
    columns = ("iteration", "pairs", "answered", "tied", "answers", "annotators", "alpha")
    head = "".join(f'<th class="n">{name}</th>' for name in columns)
    table = f"<table><tr>{head}</tr>{''.join(map(_row, figures))}</table>"
    return (
        f'<h2>People</h2><p class="note">{escape(_NOTE)}</p><div class="scroll">{table}</div>'
        f"<details><summary>By annotator</summary>{_annotators(figures)}</details>"
    )


def _row(found: PeopleFigures) -> str:
    told = found.tally
    share = f"{told.answered:,} <small>{told.answered / max(1, found.pairs):.0%}</small>"
    alpha = "-" if told.alpha is None else number(told.alpha)
    cells = (found.iteration, f"{found.pairs:,}", share, f"{told.tied:,}", f"{told.answers:,}", len(told.annotators), alpha)
    return "<tr>" + "".join(f'<td class="n">{cell}</td>' for cell in cells) + "</tr>"


def _annotators(figures: Sequence[PeopleFigures]) -> str:
    rows = "".join(
        f'<tr><td class="n">{found.iteration}</td><td>{escape(one.name)}</td><td class="n">{one.answers:,}</td>'
        f'<td class="n">{one.as_verdict / one.answers:.0%}</td></tr>'
        for found in figures
        for one in found.tally.annotators
    )
    head = '<tr><th class="n">iteration</th><th>annotator</th><th class="n">answers</th><th class="n">as the verdict</th></tr>'
    return f'<div class="scroll"><table>{head}{rows}</table></div>'
