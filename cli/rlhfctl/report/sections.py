"""The sections of the page, each empty when there is nothing to show."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.words import StageName
from rlhfctl.figures import compact, duration, number
from rlhfctl.results.model import Count, Curve, Example, GateVerdictRow, Iterate, LineageNode, Report, StageTime, TestFigure

from . import charts

ITERATE_CHARTS: tuple[tuple[Metric, str, str, float | None], ...] = (
    (Metric.WIN_RATE_VS_INITIAL, "Win rate against π0", "share of validation prompts; dashed: no difference", 0.5),
    (Metric.JUDGE_MEAN, "Judge", "mean score of the judge, validation prompts", None),
    (Metric.REWARD_MEAN, "Reward", "mean score of the training reward, same responses", None),
    (Metric.KL_TO_INITIAL, "KL to π0", "nats a sequence: how far the policy has moved", None),
    (Metric.MEAN_LENGTH, "Response length", "tokens, mean", None),
    (Metric.TRAIN_LOSS, "Training loss", "last tenth of each training", None),
)
STEP_CHARTS = (
    ("loss", "Loss by step", "one curve a training, in order"),
    ("rewards/accuracies", "Accuracy by step", "share of pairs whose chosen response is ahead"),
    ("rewards/margins", "Margin by step", "chosen reward - rejected reward, nats"),
)
STAGE_ORDER = tuple(stage.value for stage in StageName)


def charts_section(report: Report) -> str:
    panels = [_iterate_panel(report.iterates, *chart) for chart in ITERATE_CHARTS]
    panels += [_step_panel(report.curves, *chart) for chart in STEP_CHARTS]
    shown = [panel for panel in panels if panel]
    if not shown:
        return ""
    note = "Whiskers are 95 % intervals by bootstrap over prompts. The best iterate has a ring."
    return f'<h2>By iteration</h2><p class="note">{note}</p><div class="panels">{"".join(shown)}</div>'


def metrics_table(iterates: Sequence[Iterate]) -> str:
    """Every metric of every iterate, with its unit and its definition as a tooltip."""
    metrics = [metric for metric in Metric if any(metric in iterate.metrics for iterate in iterates)]
    if not metrics:
        return ""
    head = "".join(f'<th class="n">{iterate.name}{_iterate_note(iterate)}</th>' for iterate in iterates)
    body = "".join(
        f'<tr><td title="{escape(metric.definition, quote=True)}">{escape(metric.value)} <small>{escape(metric.unit)}</small></td>'
        + "".join(f'<td class="n">{_value(iterate.metrics.get(metric))}</td>' for iterate in iterates)
        + "</tr>"
        for metric in metrics
    )
    return _details("All metrics", f'<div class="scroll"><table><tr><th>metric</th>{head}</tr>{body}</table></div>')


def tests_section(tests: Sequence[TestFigure]) -> str:
    if not tests:
        return ""
    prompts = max(test.prompts for test in tests)
    rows = "".join(
        f"<tr><td>π{test.iterate}</td><td>{escape(test.decoding)}</td>"
        f'<td class="n">{_value(test.judge_mean)}</td><td class="n">{_value(test.gain_vs_initial, signed=True)}</td>'
        "</tr>"
        for test in tests
    )
    note = (
        f"{prompts:,} prompts that neither training, selection nor gates have seen. "
        "Gain: paired difference to π0, with its 95 % interval."
    )
    columns = "".join(f'<th class="n">{title}</th>' for title in ("judge", "gain over π0"))
    head = f"<tr><th>iterate</th><th>decoding</th>{columns}</tr>"
    return f'<h2>Final test</h2><p class="note">{note}</p><div class="scroll"><table>{head}{rows}</table></div>'


def examples_section(report: Report) -> str:
    """The best and the worst responses of the best iterate, pi_0's beside them."""
    if not report.examples:
        return ""
    best = report.best
    name = best.name if best else "the iterate"
    ranked = sorted(report.examples, key=lambda example: -example.judge)
    middle = (len(ranked) + 1) // 2
    parts = [f'<h2>Responses</h2><p class="note">Validation prompts; {name} beside π0, as the judge scored them.</p>']
    for title, examples in ((f"Best of {name}", ranked[:middle]), (f"Worst of {name}", ranked[middle:][::-1])):
        if examples:
            cards = [_example(example, name) for example in examples]
            parts.append(f"<h3>{title}</h3>{''.join(cards[:3])}")
            if cards[3:]:
                parts.append(_details(f"{len(cards) - 3} more", "".join(cards[3:])))
    return "".join(parts)


def gates_section(gates: Sequence[GateVerdictRow]) -> str:
    if not gates:
        return ""
    rows = "".join(
        f'<tr><td class="n">{gate.iteration}</td><td>{escape(gate.gate)}</td><td>{escape(gate.verdict)}</td>'
        f"<td>{escape(gate.action)}</td><td>{escape(gate.message)}</td></tr>"
        for gate in gates
    )
    head = '<tr><th class="n">iteration</th><th>gate</th><th>verdict</th><th>action</th><th></th></tr>'
    return f'<h2>Gates</h2><div class="scroll"><table>{head}{rows}</table></div>'


def times_section(times: Sequence[StageTime]) -> str:
    """Seconds by stage and iteration, with a bar for the stage's sum."""
    if not times:
        return ""
    stages = sorted(
        {time.stage for time in times}, key=lambda stage: (STAGE_ORDER.index(stage) if stage in STAGE_ORDER else 99, stage)
    )
    columns = sorted({time.iteration for time in times})
    total = sum(time.seconds for time in times)
    largest = max(sum(time.seconds for time in times if time.stage == stage) for stage in stages) or 1.0
    head = "".join(f'<th class="n">{"run" if column == 0 else f"iter. {column}"}</th>' for column in columns)
    rows = []
    for stage in stages:
        own = [time for time in times if time.stage == stage]
        spent = sum(time.seconds for time in own)
        cells = "".join(
            f'<td class="n">{_time_cell([time for time in own if time.iteration == column])}</td>' for column in columns
        )
        bar = f'<span class="bar" style="width:{100 * spent / largest:.1f}%"></span>'
        rows.append(f'<tr><td>{escape(stage)}</td>{cells}<td class="n">{compact(spent)}</td><td class="barcell">{bar}</td></tr>')
    note = f"{duration(total)} of work in all. The run's own evaluate is that of π0."
    table = f'<table><tr><th>stage</th>{head}<th class="n">sum</th><th></th></tr>{"".join(rows)}</table>'
    return f'<h2>Where the time went</h2><p class="note">{note}</p><div class="scroll">{table}</div>'


def counts_section(counts: Sequence[Count]) -> str:
    """What was read, kept and dropped: a row a name, a column an iteration."""
    if not counts:
        return ""
    columns = sorted({count.iteration for count in counts})
    names = list(dict.fromkeys((count.stage, count.name) for count in sorted(counts, key=_count_order)))
    found = {(count.stage, count.name, count.iteration): count.number for count in counts}
    head = "".join(f'<th class="n">{"run" if column == 0 else f"iter. {column}"}</th>' for column in columns)
    rows = "".join(
        f"<tr><td>{escape(stage)}</td><td>{escape(spaced(name))}</td>"
        + "".join(f'<td class="n">{_integer(found.get((stage, name, column)))}</td>' for column in columns)
        + "</tr>"
        for stage, name in names
    )
    note = "Nothing is dropped silently: every row that a stage read, kept or left out, by its reason."
    return (
        f'<h2>What was kept and what was dropped</h2><p class="note">{note}</p>'
        f'<div class="scroll"><table><tr><th>stage</th><th></th>{head}</tr>{rows}</table></div>'
    )


def lineage_section(report: Report) -> str:
    if report.lineage is None:
        return ""
    url = f"<p><code>{escape(report.checkpoint_url)}</code></p>" if report.checkpoint_url else ""
    note = "The best iterate, and below each artifact what it was made from. Digests are SHA-256 of an artifact's manifest."
    return (
        f'<h2>Lineage</h2><p class="note">{note}</p>{url}<div class="lineage"><ul class="tree">{_node(report.lineage)}</ul></div>'
    )


def manifest_section(text: str) -> str:
    return (
        f"<h2>Manifest</h2>{_details('The run as it was described', f'<div class=manifest><pre>{escape(text)}</pre></div>')}"
        if text
        else ""
    )


def _iterate_panel(iterates: Sequence[Iterate], metric: Metric, title: str, note: str, baseline: float | None) -> str:
    points = [
        charts.Point(iterate.name, found.value, found.lower, found.upper, iterate.best)
        for iterate in iterates
        if (found := iterate.metrics.get(metric)) is not None
    ]
    return _panel(title, note, charts.iterates_chart(title, points, baseline)) if points else ""


def _step_panel(curves: Sequence[Curve], key: str, title: str, note: str) -> str:
    own = [(f"π{curve.iteration}", curve.points) for curve in curves if curve.key == key]
    chart = charts.steps_chart(title, own)
    return _panel(title, note, chart) if chart else ""


def _panel(title: str, note: str, chart: str) -> str:
    return f'<div class="panel"><h3>{escape(title)}</h3><p>{escape(note)}</p>{chart}</div>'


def _example(example: Example, name: str) -> str:
    initial = example.initial_response if example.initial_response is not None else "-"
    trend = ""
    if example.initial_judge is not None and example.judge != example.initial_judge:
        up = example.judge > example.initial_judge
        trend = f' <span class="{"up" if up else "down"}">{"▲ better" if up else "▼ worse"} than π0</span>'
    reward = f" · reward {number(example.reward)}" if example.reward is not None else ""
    initial_score = "" if example.initial_judge is None else f"judge {number(example.initial_judge)}"
    return (
        f'<div class="example"><div class="prompt"><h4>Prompt</h4><pre>{escape(example.prompt)}</pre></div><div class="sides">'
        f'<div class="side"><h4>π0 · <span class="score">{initial_score}</span></h4><pre>{escape(initial)}</pre></div>'
        f'<div class="side"><h4>{name} · <span class="score">judge {number(example.judge)}{reward}</span>{trend}</h4>'
        f"<pre>{escape(example.response)}</pre></div></div></div>"
    )


def _node(node: LineageNode) -> str:
    digest = f" <code>{node.digest[:16]}</code>" if node.digest else ""
    location = f" <code>{escape(node.location)}</code>" if node.location else ""
    again = ' <span class="note">(as above)</span>' if node.repeated else ""
    below = f'<ul class="tree">{"".join(map(_node, node.inputs))}</ul>' if node.inputs else ""
    return f"<li>{escape(node.label)}{digest}{location}{again}{below}</li>"


def _value(value: MetricValue | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    form: Callable[[float], str] = (lambda x: ("+" if x > 0 else "") + number(x)) if signed else number
    if value.lower is None or value.upper is None:
        return escape(form(value.value))
    return f"{escape(form(value.value))} <small>[{escape(form(value.lower))}, {escape(form(value.upper))}]</small>"


def _iterate_note(iterate: Iterate) -> str:
    return " ★ best" if iterate.best else " rolled back" if iterate.discarded else ""


def _time_cell(times: Sequence[StageTime]) -> str:
    if not times:
        return ""
    text = "found" if all(time.found for time in times) else compact(sum(time.seconds for time in times))
    attempts = max(time.attempts for time in times)
    return f"{text} <small>{attempts} attempts</small>" if attempts > 1 else text


def _count_order(count: Count) -> tuple[int, str, int]:
    return (STAGE_ORDER.index(count.stage) if count.stage in STAGE_ORDER else 99, count.stage, count.iteration)


def spaced(name: str) -> str:
    """`promptsTied` as `prompts tied`; what has spaces stays as it is."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower() if " " not in name else name


def _integer(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"
