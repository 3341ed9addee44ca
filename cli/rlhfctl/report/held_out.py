"""The tables of a reward model or judge that the run trained: how often it is right about held-out pairs, and how sure it is."""

from __future__ import annotations

from html import escape

from rlhfctl.figures import number
from rlhfctl.results.model import Accuracy, Calibration, HeldOutFigures

_LENGTHS = {
    "ChosenLonger": "chosen is longer",
    "ChosenShorter": "chosen is shorter",
    "AboutEqual": "about equally long (within a tenth)",
}


def held_out_section(whose: str, figures: HeldOutFigures | None) -> str:
    """whose: its heading."""
    if figures is None:
        return ""
    subsets = len([found for found in figures.accuracies if found.group == "Subset"])
    mean = f" Mean of the {subsets} subsets: {number(figures.mean_of_subsets)}." if subsets > 1 else ""
    note = (
        f"Accuracy on pairs of {figures.prompts:,} prompts that it was not trained on; a tie counts one half; 95 % intervals by "
        f"bootstrap over prompts. Beside it, that of preferring the longer response.{mean}"
    )
    head = '<tr><th>pairs of which</th><th class="n">pairs</th><th class="n">accuracy</th><th class="n">longer is better</th></tr>'
    table = f"<table>{head}{''.join(map(_row, figures.accuracies))}</table>"
    return (
        f'<h2>{escape(whose)}</h2><p class="note">{escape(note)}</p><div class="scroll">{table}</div>'
        f"{_calibration(figures.calibration, figures.expected_calibration_error)}"
    )


def _row(found: Accuracy) -> str:
    name = _LENGTHS.get(found.name, found.name) if found.group == "Length" else found.name
    value, lower, upper = found.accuracy.value, found.accuracy.lower, found.accuracy.upper
    interval = "" if lower is None or upper is None else f" <small>{number(lower)} to {number(upper)}</small>"
    return (
        f'<tr><td>{escape(name)}</td><td class="n">{found.pairs:,}</td><td class="n">{number(value)}{interval}</td>'
        f'<td class="n">{number(found.by_length)}</td></tr>'
    )


def _calibration(bins: tuple[Calibration, ...], error: float) -> str:
    """Bins from one half on: those below mirror them."""
    upper = [found for found in bins if found.lower >= 0.5 and found.predicted is not None and found.observed is not None]
    if not upper:
        return ""
    rows = "".join(
        f'<tr><td>from {number(found.lower)}</td><td class="n">{found.predictions:,}</td>'
        f'<td class="n">{_share(found.predicted)}</td><td class="n">{_share(found.observed)}</td></tr>'
        for found in upper
    )
    head = '<tr><th>how sure it is</th><th class="n">pairs</th><th class="n">predicted</th><th class="n">observed</th></tr>'
    note = (
        "Calibration: the probability that it gives the response which it prefers, and how often that one was chosen. "
        f"Expected calibration error: {number(error)}."
    )
    return f'<p class="note">{escape(note)}</p><div class="scroll"><table>{head}{rows}</table></div>'


def _share(value: float | None) -> str:
    return "-" if value is None else number(value)
