"""The figures that a paper shows, a row an iterate; as text for HTML and Markdown, and as values for a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rlhf_api.metrics import Metric
from rlhfctl.figures import number
from rlhfctl.results.model import BenchmarkFigure, Iterate, Report

#: The columns in front of the benchmarks', where an iterate has them.
_COLUMNS = (
    (Metric.WIN_RATE_VS_INITIAL, "win rate"),
    (Metric.LENGTH_ADJUSTED_WIN_RATE_VS_INITIAL, "length-adjusted win rate"),
    (Metric.JUDGE_MEAN, "judge"),
    (Metric.KL_TO_INITIAL, "KL"),
    (Metric.MEAN_LENGTH, "length"),
)
_NOTE = (
    "Validation prompts, against π0; KL in nats a sequence, length in tokens. ± is half of the 95 % interval, of benchmarks too."
)
#: From a standard error to half of an interval.
_HALF = 1.96
_ESCAPED = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>|#"})


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def summary(report: Report) -> Table:
    """Of members of groups nothing: the groups stand for them."""
    metrics = [column for column in _COLUMNS if any(column[0] in iterate.metrics for iterate in report.iterates)]
    whole = [figure for figure in report.benchmarks if not figure.member]
    benchmarks = list(dict.fromkeys((figure.task, figure.metric) for figure in whole))
    found = {(figure.iterate, figure.task, figure.metric): figure for figure in whole}
    measured = {iterate.number: iterate for iterate in report.iterates}
    rows = []
    for iteration in sorted(measured.keys() | {figure.iterate for figure in whole}):
        iterate = measured.get(iteration)
        own = [_measured(iterate, metric) for metric, _ in metrics]
        theirs = [_benchmark(found.get((iteration, *benchmark))) for benchmark in benchmarks]
        rows.append((_name(iteration, iterate), *own, *theirs))
    head = ("iterate", *(title for _, title in metrics), *(f"{task} {metric}" for task, metric in benchmarks))
    return Table(head, tuple(rows) if len(head) > 1 else ())


def summary_section(report: Report) -> str:
    table = summary(report)
    if not table.rows:
        return ""
    head = "".join(f"<th{_side(column)}>{escape(title)}</th>" for column, title in enumerate(table.head))
    rows = "".join(
        f"<tr>{''.join(f'<td{_side(column)}>{escape(cell)}</td>' for column, cell in enumerate(row))}</tr>" for row in table.rows
    )
    return f'<h2>Iterates</h2><p class="note">{_NOTE}</p><div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def markdown(report: Report) -> str:
    """The iterates' table, and below it every benchmark's, as GitHub and others render them."""
    parts = [f"# {report.name.translate(_ESCAPED)}", f"{report.phase}, {report.namespace}; best: {_best(report)}."]
    table = summary(report)
    if table.rows:
        parts += [_NOTE, _as_markdown(table)]
    if report.benchmarks:
        parts += [
            "## Benchmarks",
            "lm-evaluation-harness; ± is the standard error.",
            _as_markdown(_of_benchmarks(report.benchmarks)),
        ]
    if report.missing:
        parts += ["## Not in these tables", "\n".join(f"- {sentence.translate(_ESCAPED)}" for sentence in report.missing)]
    return "\n\n".join(parts) + "\n"


def values(report: Report) -> dict[str, Any]:
    """For a program: nothing is rounded, and what was not measured is absent."""
    iterations = sorted({iterate.number for iterate in report.iterates} | {figure.iterate for figure in report.benchmarks})
    measured = {iterate.number: iterate for iterate in report.iterates}
    return {
        "name": report.name,
        "namespace": report.namespace,
        "phase": report.phase,
        "best": report.best.number if report.best else None,
        "iterates": [_values(number_, measured.get(number_), report.benchmarks) for number_ in iterations],
        "missing": list(report.missing),
    }


def _values(iteration: int, iterate: Iterate | None, benchmarks: Sequence[BenchmarkFigure]) -> dict[str, Any]:
    metrics = {} if iterate is None else {str(name): value.to_wire() for name, value in iterate.metrics.items()}
    return {
        "iterate": iteration,
        "discarded": iterate is not None and iterate.discarded,
        "metrics": metrics,
        "benchmarks": [_wire(figure) for figure in benchmarks if figure.iterate == iteration],
    }


def _wire(figure: BenchmarkFigure) -> dict[str, Any]:
    fields = {
        "task": figure.task,
        "metric": figure.metric,
        "value": figure.value,
        "stderr": figure.stderr,
        "shots": figure.shots,
        "samples": figure.samples,
        "ofSamples": figure.of_samples,
        "truncated": figure.truncated,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _of_benchmarks(figures: Sequence[BenchmarkFigure]) -> Table:
    iterations = sorted({figure.iterate for figure in figures})
    found = {(figure.task, figure.metric, figure.iterate): figure for figure in figures}
    rows = []
    for task, metric in dict.fromkeys((figure.task, figure.metric) for figure in figures):
        own = [found.get((task, metric, iteration)) for iteration in iterations]
        some = next(figure for figure in own if figure is not None)
        asked = f"{some.samples}" if some.samples == some.of_samples else f"{some.samples} of {some.of_samples}"
        shots = "-" if some.shots is None else str(some.shots)
        rows.append((task, metric, shots, asked, *(_benchmark(figure, 1.0) for figure in own)))
    return Table(("task", "metric", "shots", "questions", *(f"π{iteration}" for iteration in iterations)), tuple(rows))


def _as_markdown(table: Table) -> str:
    texts = sum(title in ("iterate", "task", "metric") for title in table.head)
    rule = ["---"] * texts + ["---:"] * (len(table.head) - texts)
    lines = [[cell.translate(_ESCAPED) for cell in table.head], rule]
    lines += [[cell.translate(_ESCAPED) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _measured(iterate: Iterate | None, metric: Metric) -> str:
    value = None if iterate is None else iterate.metrics.get(metric)
    if value is None:
        return "-"
    if value.lower is None or value.upper is None:
        return number(value.value)
    return f"{number(value.value)} ± {number((value.upper - value.lower) / 2)}"


def _benchmark(figure: BenchmarkFigure | None, errors: float = _HALF) -> str:
    if figure is None:
        return "-"
    return number(figure.value) + (f" ± {number(errors * figure.stderr)}" if figure.stderr is not None else "")


def _name(iteration: int, iterate: Iterate | None) -> str:
    note = "" if iterate is None else " (best)" if iterate.best else " (rolled back)" if iterate.discarded else ""
    return f"π{iteration}{note}"


def _best(report: Report) -> str:
    return report.best.name if report.best else "none yet"


def _side(column: int) -> str:
    return ' class="n"' if column else ""
