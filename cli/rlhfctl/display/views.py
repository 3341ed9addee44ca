"""A run as lines of text, 80 columns first. Pure: a RLHFRun in, lines out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rlhf_api import RLHFRun
from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.status import GateVerdict, IterationStatus, RLHFRunStatus, StageStatus
from rlhf_api.words import Phase, StageName
from rlhf_operator.core.cursor import stages_of
from rlhfctl import figures
from rlhfctl.results.iterates import HEADLINE, initial_evaluation, iterates
from rlhfctl.sources.source import Stored

from . import phases, table
from .terminal import Terminal

_DECIMALS = {
    Metric.JUDGE_MEAN: 3,
    Metric.REWARD_MEAN: 2,
    Metric.KL_TO_INITIAL: 2,
    Metric.MEAN_LENGTH: 1,
    Metric.TRAIN_LOSS: 3,
}


def run_lines(run: RLHFRun, out: Terminal, now: datetime) -> list[str]:
    """`rlhfctl status NAME`: where it is, its iterations, its stages."""
    status = run.status or RLHFRunStatus()
    lines = [headline(run, out), *_times(status, now)]
    if status.message:
        lines += [f"  {line}" for line in wrap(status.message, out.width - 2)]
    lines += ["", *iteration_table(run, out)] if initial_evaluation(status) or status.iterations else []
    lines += ["", *stage_lines(status, out, now)] if status.stages or status.iterations else []
    lines += _gate_lines(status, out)
    if status.checkpoint is not None:
        lines += ["", f"checkpoint of π{status.best_iteration or 0}, the best iterate:", f"  {status.checkpoint.url}"]
    return lines


def headline(run: RLHFRun, out: Terminal) -> str:
    """`name  ● Running  iteration 2 of 3, train`."""
    status = run.status or RLHFRunStatus()
    parts = [out.paint(run.metadata.name, "bold"), phases.painted(status.phase, out)]
    where = position(run)
    return "  ".join([*parts, where] if where else parts)


def position(run: RLHFRun) -> str:
    """`iteration 2 of 3, train`; empty when nothing has started."""
    status = run.status or RLHFRunStatus()
    total = run.spec.iterations
    if status.phase.finished:
        done = sum(1 for item in status.iterations if _whole(item))
        return f"{done} of {figures.plural(total, 'iteration')}"
    if status.iteration:
        return f"iteration {status.iteration} of {total}" + (f", {status.stage}" if status.stage else "")
    return f"before iteration 1, {status.stage}" if status.stage else ""


def iteration_table(run: RLHFRun, out: Terminal) -> list[str]:
    """Iterates and the metrics that a person looks at first; ★ is the best, ↶ one that was rolled back."""
    status = run.status or RLHFRunStatus()
    header = ["ITERATE", "WIN RATE VS π0", "JUDGE", "REWARD", "KL", "LENGTH", "LOSS"]
    body = [iterate_row(number, metrics, _mark(status, number)) for number, metrics in iterates(status)]
    lines = table.rows(header, body, right=frozenset(range(2, 7)), width=out.width)
    return [out.paint(lines[0], "dim"), *lines[1:]]


def iterate_row(number: int, metrics: dict[Metric, MetricValue], mark: str) -> list[str]:
    win = figures.with_interval(metrics.get(Metric.WIN_RATE_VS_INITIAL))
    return [f"π{number}{mark}", win, *(figures.fixed(metrics.get(metric), _DECIMALS[metric]) for metric in HEADLINE)]


def stage_lines(status: RLHFRunStatus, out: Terminal, now: datetime) -> list[str]:
    """A line for the run's own stages and one for each iteration: ✓ sample 31s  ✓ label 4s …"""
    before = [stage for stage in status.stages if stage.name != StageName.FINALIZE]
    after = [stage for stage in status.stages if stage.name == StageName.FINALIZE]
    groups: list[tuple[str, Sequence[StageStatus]]] = [("before", before)]
    groups += [(f"iter {item.number}", item.stages) for item in sorted(status.iterations, key=lambda item: item.number)]
    groups.append(("after", after))
    lines: list[str] = []
    for title, stages in groups:
        if stages:
            lines += _flow(out.paint(title.ljust(7), "dim"), [_stage_words(stage, out, now) for stage in stages], out.width)
    return lines


def stage_table(run: RLHFRun, out: Terminal, now: datetime) -> list[str]:
    """`-o wide`: a row a stage."""
    status = run.status or RLHFRunStatus()
    header = ["ITER", "STAGE", "PHASE", "ATTEMPT", "RETRIES", "STARTED", "TIME", "ARTIFACT"]
    body: list[list[str]] = []
    for number, stage in stages_of(status):
        artifact = stage.artifact.fingerprint[:12] + (" (found)" if stage.adopted else "") if stage.artifact else "-"
        retries = f"{stage.application_retries}+{stage.infrastructure_retries}"
        started, end = figures.clock(stage.start_time), stage.completion_time or (now if stage.phase == Phase.RUNNING else None)
        cells = [str(number or "-"), stage.name.value, phases.words(stage.phase), str(stage.attempt), retries, started]
        body.append([*cells, figures.between(stage.start_time, end), artifact])
    lines = table.rows(header, body)
    return [out.paint(lines[0], "dim"), *lines[1:]]


def stored_lines(run: Stored, out: Terminal) -> list[str]:
    """`rlhfctl status NAME` of a run of another version: what stands there, word for word, and that it is not understood."""
    stage, iteration = run.text("status", "stage"), run.text("status", "iteration")
    where = ", ".join(part for part in (f"iteration {iteration}" if iteration else "", stage) if part)
    lines = ["  ".join(part for part in (out.paint(run.name, "bold"), out.paint(_stored_phase(run), "yellow"), where) if part)]
    lines += [f"  {line}" for line in wrap(run.text("status", "message"), out.width - 2)]
    return [*lines, "", *wrap(f"{run.why}.", out.width)]


def list_table(
    runs: Sequence[RLHFRun],
    out: Terminal,
    now: datetime,
    *,
    wide: bool,
    namespaces: bool = False,
    stored: Sequence[Stored] = (),
) -> list[str]:
    """`rlhfctl list`; with `namespaces` the runs may be of several. Those of another version come last."""
    header = (
        (["NAMESPACE"] if namespaces else [])
        + ["NAME", "PHASE", "ITERATION", "STAGE", "BEST", "WIN RATE VS π0", "AGE"]
        + (["MESSAGE"] if wide else [])
    )
    body: list[list[str]] = []
    for run in runs:
        status = run.status or RLHFRunStatus()
        best = status.best_iteration
        values = dict(iterates(status))
        win = values.get(best, {}).get(Metric.WIN_RATE_VS_INITIAL) if best is not None else None
        cells = [run.metadata.namespace] if namespaces else []
        cells += [run.metadata.name, phases.words(status.phase), f"{status.iteration}/{run.spec.iterations}"]
        cells += [status.stage.value if status.stage else "-", "-" if best is None else f"π{best}", figures.with_interval(win)]
        since = status.start_time or run.metadata.creation_timestamp
        cells.append(figures.compact((now - since).total_seconds()) if since else "-")
        body.append([*cells, status.message] if wide else cells)
    body += [[other.namespace] * namespaces + _stored_cells(other, now) + [other.why] * wide for other in stored]
    lines = table.rows(header, body, width=0 if wide else out.width)
    return [out.paint(lines[0], "dim"), *lines[1:]]


def _stored_cells(run: Stored, now: datetime) -> list[str]:
    since = run.time("status", "startTime") or run.time("metadata", "creationTimestamp")
    age = figures.compact((now - since).total_seconds()) if since is not None and since.tzinfo is not None else "-"
    place = f"{run.text('status', 'iteration') or 0}/{run.text('spec', 'iterations') or '?'}"
    return [run.name, _stored_phase(run), place, run.text("status", "stage") or "-", "-", "-", age]


def _stored_phase(run: Stored) -> str:
    return f"? {run.text('status', 'phase') or Phase.PENDING.value}"


def wrap(text: str, width: int) -> list[str]:
    import textwrap

    return [part for line in text.splitlines() for part in textwrap.wrap(line, max(width, 20), break_long_words=False) or [""]]


def _times(status: RLHFRunStatus, now: datetime) -> list[str]:
    if status.start_time is None:
        return []
    end = status.completion_time
    text = f"  started {figures.clock(status.start_time)}"
    if end is not None:
        return [f"{text}, ended {figures.clock(end)}, took {figures.between(status.start_time, end)}"]
    return [f"{text}, {figures.between(status.start_time, now)} ago"]


def _gate_lines(status: RLHFRunStatus, out: Terminal) -> list[str]:
    lines: list[str] = []
    for iteration in status.iterations:
        for gate in iteration.gates:
            if gate.verdict in (GateVerdict.TRIPPED, GateVerdict.APPROVED):
                glyph = (
                    out.paint("! tripped", "yellow") if gate.verdict == GateVerdict.TRIPPED else out.paint("✓ approved", "green")
                )
                lines.append(f"{glyph}  gate {gate.name}, iteration {iteration.number}, action {gate.action.value}")
                lines += [f"  {line}" for line in wrap(gate.message, out.width - 2)]
    return ["", *lines] if lines else []


def _stage_words(stage: StageStatus, out: Terminal, now: datetime) -> str:
    glyph = out.paint(phases.GLYPH[stage.phase], phases.COLOUR[stage.phase])
    end = stage.completion_time or (now if stage.phase == Phase.RUNNING else None)
    spent = figures.compact((end - stage.start_time).total_seconds()) if stage.start_time and end else ""
    if stage.phase == Phase.SUCCEEDED:
        word = "found" if stage.adopted else spent
    else:
        word = f"{stage.phase.value.lower()} {spent}".strip()
    attempt = f" (attempt {stage.attempt})" if stage.attempt > 1 else ""
    return f"{glyph} {stage.name} {word}{attempt}".rstrip()


def _flow(title: str, cells: Sequence[str], width: int) -> list[str]:
    """Cells after a title, on as many lines as they need; the title is 7 wide."""
    lines: list[str] = []
    here, used = title, 7
    for cell in cells:
        size = len(unpainted(cell)) + 2
        if used + size - 2 > width and used > 7:
            lines.append(here.rstrip())
            here, used = " " * 7, 7
        here, used = here + cell + "  ", used + size
    return [*lines, here.rstrip()]


def unpainted(text: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _mark(status: RLHFRunStatus, number: int) -> str:
    if status.best_iteration == number:
        return " ★ best"
    discarded = any(item.number == number and item.discarded for item in status.iterations)
    return " rolled back" if discarded else ""


def _whole(iteration: IterationStatus) -> bool:
    return any(stage.name == StageName.EVALUATE and stage.phase == Phase.SUCCEEDED for stage in iteration.stages)
