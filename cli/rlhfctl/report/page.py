"""A Report as one HTML page. The story first: what came out, how it went, what it says, what it cost, where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from rlhf_api.metrics import Metric, MetricValue
from rlhfctl.display.documents import to_yaml
from rlhfctl.figures import compact, duration, number
from rlhfctl.results.model import Report

from . import sections
from .benchmarks import benchmarks_section
from .held_out import held_out_section
from .people import people_section
from .tables import summary_section

_PHASE_CLASS = {"Succeeded": "good", "Failed": "bad", "Cancelled": "warn", "Paused": "warn", "Suspended": "warn"}
_PHASE_GLYPH = {"Succeeded": "✓", "Failed": "✗", "Cancelled": "⊘", "Paused": "‖", "Suspended": "‖"}


def render(report: Report) -> str:
    """The whole page. It refers to nothing outside itself."""
    css = files("rlhfctl.report").joinpath("report.css").read_text(encoding="utf-8")
    body = "\n".join(part for part in _parts(report) if part)
    title = escape(f"{report.name}: online iterative RLHF")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>\n{css}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _parts(report: Report) -> Sequence[str]:
    return (
        _head(report),
        _missing(report.missing),
        _tiles(report),
        sections.charts_section(report),
        sections.metrics_table(report.iterates),
        sections.tests_section(report.tests),
        benchmarks_section(report.benchmarks),
        held_out_section("Reward model", report.held_out),
        held_out_section("Judge", report.judge_held_out),
        people_section(report.people),
        sections.examples_section(report),
        sections.gates_section(report.gates),
        sections.times_section(report.times),
        sections.counts_section(report.counts),
        sections.lineage_section(report),
        summary_section(report),
        sections.manifest_section(to_yaml(report.manifest)),
    )


def _head(report: Report) -> str:
    css = _PHASE_CLASS.get(report.phase, "")
    glyph = _PHASE_GLYPH.get(report.phase, "●")
    when = f"started {report.started}" + (f", took {duration(report.seconds)}" if report.seconds is not None else "")
    phase = f'<span class="phase {css}">{glyph} {escape(report.phase)}</span>'
    lines = [
        f"<h1>{escape(report.name)}</h1>",
        f'<p class="sub">{phase} · namespace {escape(report.namespace)} · {escape(when)}</p>',
        f'<p class="lead">{verdict(report)}</p>',
    ]
    if report.message and report.phase != "Succeeded":
        lines.append(f"<p>{escape(report.message)}</p>")
    return "\n".join(lines)


def verdict(report: Report) -> str:
    """The result in one or two sentences, with its interval; no more than the figures say."""
    best = report.best
    done = len([iterate for iterate in report.iterates if iterate.number > 0])
    if best is None:
        return f"{done} of {report.iterations_planned} iterations have figures; there is no best iterate yet."
    chosen = f"π{best.number} is the best iterate by {escape(report.selection_metric)}"
    if best.number == 0:
        return f"{chosen}: no iteration improved on the initial model."
    win = best.metrics.get(Metric.WIN_RATE_VS_INITIAL)
    if win is None:
        return f"{chosen}."
    sentence = (
        f"{chosen}. The judge prefers its responses to the initial model's on {_percent(win.value)} of the validation prompts"
    )
    if win.lower is None or win.upper is None:
        return f"{sentence}."
    sure = win.lower > 0.5 or win.upper < 0.5
    interval = f" (95 % interval {_percent(win.lower)} to {_percent(win.upper)})"
    return f"{sentence}{interval}." + ("" if sure else " The interval holds one half: no difference is shown.")


def _tiles(report: Report) -> str:
    best = report.best
    tiles: list[tuple[str, str]] = []
    if best is not None:
        tiles += _tile(best.metrics.get(Metric.WIN_RATE_VS_INITIAL), "win rate against π0, validation prompts")
        for test in report.tests:
            if test.iterate == best.number and test.gain_vs_initial is not None:
                sign = "+" if test.gain_vs_initial.value >= 0 else ""
                tiles.append(
                    (
                        f"{sign}{number(test.gain_vs_initial.value)}",
                        f"judge's score over π0's, test prompts, {test.decoding}",
                    )
                )
        tiles += _tile(best.metrics.get(Metric.KL_TO_INITIAL), "nats a sequence, KL to π0")
        tiles += _tile(best.metrics.get(Metric.MEAN_LENGTH_RATIO_VS_INITIAL), "response length, relative to π0's")
    if report.seconds is not None:
        tiles.append((compact(report.seconds), "from start to end"))
    cells = "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>' for value, label in tiles)
    return f'<div class="tiles">{cells}</div>' if cells else ""


def _tile(value: MetricValue | None, label: str) -> list[tuple[str, str]]:
    return [] if value is None else [(number(value.value), label)]


def _missing(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="missing"><strong>Not in this report</strong><ul>{items}</ul></div>'


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
