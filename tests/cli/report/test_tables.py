"""The report's tables, for a paper or a program: a row an iterate, the benchmarks beside the metrics."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_api import RLHFRun
from rlhf_api.metrics import Metric, MetricValue
from rlhf_store import open_store
from rlhfctl.report.tables import markdown, summary, summary_section, values
from rlhfctl.results.collect import collect
from rlhfctl.results.model import BenchmarkFigure, Iterate, Report
from support import example_runs, example_store
from support.rlhfctl import rlhfctl


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RLHFRun:
    return example_store.finished("quickstart", tmp_path_factory.mktemp("state") / "store")


@pytest.fixture(scope="module")
def collected(run: RLHFRun) -> Report:
    return collect(run, open_store(run.spec.storage), example_runs.START)


def figure(iterate: int, task: str, value: float, *, member: bool = False) -> BenchmarkFigure:
    return BenchmarkFigure(iterate, task, "exact_match/strict-match", value, 0.01, 5, 100, 1319, 0, member)


@pytest.fixture
def report(collected: Report) -> Report:
    """pi_0 and pi_1, which was rolled back; a benchmark of both, and of pi_2 alone, which is not evaluated yet."""
    iterates = (
        Iterate(0, {Metric.WIN_RATE_VS_INITIAL: MetricValue(value=0.5)}, best=True),
        Iterate(1, {Metric.WIN_RATE_VS_INITIAL: MetricValue(value=0.625, lower=0.55, upper=0.7)}, discarded=True),
    )
    figures = [figure(number, "gsm8k", 0.7 + number / 100) for number in range(3)]
    return replace(collected, iterates=iterates, benchmarks=(*figures, figure(0, "mmlu_law<b>|", 0.4, member=True)), missing=())


def test_an_iterate_is_a_row_with_its_metrics_and_then_its_benchmarks(report: Report) -> None:
    table = summary(report)
    assert table.head == ("iterate", "win rate", "gsm8k exact_match/strict-match")
    assert table.rows == (
        ("π0 (best)", "0.500", "0.700 ± 0.020"),
        ("π1 (rolled back)", "0.625 ± 0.075", "0.710 ± 0.020"),
        ("π2", "-", "0.720 ± 0.020"),
    )


def test_as_markdown_every_row_has_the_columns_of_its_head_whatever_names_hold(report: Report) -> None:
    tables = [part.splitlines() for part in markdown(report).split("\n\n") if part.startswith("|")]
    assert [len(table) for table in tables] == [5, 4]
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "mmlu\\_law\\<b\\>\\|" in tables[1][3]
    assert "100 of 1319" in tables[1][2]


def test_for_a_program_nothing_is_rounded_and_nothing_is_made_up(report: Report) -> None:
    told = json.loads(json.dumps(values(report)))
    assert [entry["iterate"] for entry in told["iterates"]] == [0, 1, 2]
    assert told["iterates"][1]["metrics"]["winRateVsInitial"] == {"value": 0.625, "lower": 0.55, "upper": 0.7}
    assert told["iterates"][2] == {
        "iterate": 2,
        "discarded": False,
        "metrics": {},
        "benchmarks": [
            {
                "task": "gsm8k",
                "metric": "exact_match/strict-match",
                "value": 0.72,
                "stderr": 0.01,
                "shots": 5,
                "samples": 100,
                "ofSamples": 1319,
                "truncated": 0,
            }
        ],
    }


def test_the_page_has_the_table_and_none_where_there_is_nothing(report: Report) -> None:
    assert "<td>π1 (rolled back)</td>" in summary_section(report)
    nothing = replace(report, iterates=(), benchmarks=())
    assert summary_section(nothing) == ""
    assert "|" not in markdown(nothing)


@pytest.mark.parametrize(
    ("arguments", "begins", "written"),
    [
        (("--format", "md"), "# quickstart", "report.md"),
        (("--format", "json"), "{", "report.json"),
        (("-o", "table.md"), "# quickstart", "table.md"),
        (("-o", "figures.JSON"), "{", "figures.JSON"),
        (("-o", "table.md", "--format", "html"), "<!doctype html>", "table.md"),
    ],
)
def test_the_command_writes_what_the_files_name_or_the_format_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], begins: str, written: str
) -> None:
    example_runs.save(tmp_path / "state", example_store.finished("quickstart", tmp_path / "state" / "store"))
    monkeypatch.chdir(tmp_path)
    done = rlhfctl("report", "quickstart", "--state", "state", *arguments)
    path = Path(done.out.strip())
    assert path.name == written
    assert path.read_text(encoding="utf-8").startswith(begins)
