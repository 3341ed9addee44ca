"""The table of benchmarks: a row a metric of a task, a column an iterate."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rlhfctl.figures import number
from rlhfctl.results.model import BenchmarkFigure


def benchmarks_section(figures: Sequence[BenchmarkFigure]) -> str:
    if not figures:
        return ""
    iterates = sorted({figure.iterate for figure in figures})
    rows: dict[tuple[str, str], dict[int, BenchmarkFigure]] = {}
    for figure in figures:
        rows.setdefault((figure.task, figure.metric), {})[figure.iterate] = figure
    body = "".join(_row(task, metric, [found.get(iterate) for iterate in iterates]) for (task, metric), found in rows.items())
    head = "".join(f'<th class="n">π{iterate}</th>' for iterate in iterates)
    note = f"lm-evaluation-harness; ± is the standard error. {_notes(figures)}".rstrip()
    table = f'<table><tr><th>task</th><th>metric</th><th class="n">shots</th><th class="n">questions</th>{head}</tr>{body}</table>'
    return f'<h2>Benchmarks</h2><p class="note">{escape(note)}</p><div class="scroll">{table}</div>'


def _notes(figures: Sequence[BenchmarkFigure]) -> str:
    """What makes values differ from those that others publish."""
    limited = sorted({figure.task for figure in figures if figure.samples < figure.of_samples})
    truncated = sorted({figure.task for figure in figures if figure.truncated})
    words = []
    if limited:
        words.append(f"Only the first questions were asked of {', '.join(limited)}.")
    if truncated:
        words.append(f"Questions of {', '.join(truncated)} lost their beginning: the context is too short for them.")
    return " ".join(words)


def _row(task: str, metric: str, figures: Sequence[BenchmarkFigure | None]) -> str:
    some = next(figure for figure in figures if figure is not None)
    shots = "-" if some.shots is None else str(some.shots)
    asked = f"{some.samples:,}" if some.samples == some.of_samples else f"{some.samples:,} of {some.of_samples:,}"
    cells = "".join(f'<td class="n">{_value(figure)}</td>' for figure in figures)
    return f'<tr><td>{escape(task)}</td><td>{escape(metric)}</td><td class="n">{shots}</td><td class="n">{asked}</td>{cells}</tr>'


def _value(figure: BenchmarkFigure | None) -> str:
    if figure is None:
        return "-"
    return number(figure.value) + (f" <small>± {number(figure.stderr)}</small>" if figure.stderr is not None else "")
