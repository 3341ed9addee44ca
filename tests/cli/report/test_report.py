"""The report: one file, nothing from outside, nothing hidden."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlhf_api import RLHFRun
from rlhf_api.resource.status import ArtifactStatus, StageStatus
from rlhf_api.stage import RunRef
from rlhf_api.words import ArtifactKind, Phase, StageName
from rlhf_operator.core.cursor import with_stage
from rlhf_operator.local import LocalState
from rlhf_store import ArtifactWriter, metrics_key, open_store
from rlhfctl.exits import Exit
from rlhfctl.report import charts
from rlhfctl.report.page import render, verdict
from rlhfctl.results.collect import collect
from rlhfctl.results.files import read_curves
from rlhfctl.results.model import Report
from support import example_runs, example_store
from support.rlhfctl import rlhfctl


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RLHFRun:
    return example_store.finished("quickstart", tmp_path_factory.mktemp("state") / "store")


@pytest.fixture(scope="module")
def report(run: RLHFRun) -> Report:
    return collect(run, open_store(run.spec.storage), example_runs.START)


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return render(report)


class _Elements(HTMLParser):
    """Checks nesting, and collects elements with their attributes."""

    VOID = ("meta", "br", "circle", "line", "rect", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def _elements(page: str) -> _Elements:
    parser = _Elements()
    parser.feed(page)
    return parser


def test_it_refers_to_nothing_outside_itself(page: str) -> None:
    elements = _elements(page)
    assert not [tag for tag, _ in elements.seen if tag in ("script", "link", "img", "iframe", "object", "embed")]
    assert not [attributes for _, attributes in elements.seen if {"src", "href", "onclick", "onload"} & attributes.keys()]
    assert "url(" not in page
    assert "@import" not in page


def test_its_elements_are_well_nested(page: str) -> None:
    assert _elements(page).open == []


def test_it_shows_each_curve_of_the_issue(page: str) -> None:
    labels = [attributes["aria-label"] or "" for tag, attributes in _elements(page).seen if tag == "svg"]
    for title in ("Win rate", "Judge", "Reward", "KL", "Response length", "Training loss", "Loss by step"):
        assert [label for label in labels if label.startswith(title)], title


def test_every_chart_says_its_figures_in_words_too(page: str) -> None:
    label = next(
        attributes["aria-label"]
        for tag, attributes in _elements(page).seen
        if tag == "svg" and (attributes["aria-label"] or "").startswith("Win rate")
    )
    assert label == "Win rate against π0. π0: 0.500; π1: 0.612; π2: 0.694; π3: 0.731"


def test_the_result_is_said_first_with_its_interval(report: Report, page: str) -> None:
    sentence = verdict(report)
    assert "π3 is the best iterate by winRateVsInitial" in sentence
    assert "73 % of the validation prompts (95 % interval 69 % to 77 %)" in sentence
    assert page.index(sentence) < page.index("<svg")


def test_it_does_not_claim_a_difference_that_the_interval_does_not_show(run: RLHFRun) -> None:
    from rlhf_api.metrics import Metric, MetricValue

    assert run.status is not None
    weak = run.status.iterations[-1].model_copy(
        update={"metrics": {Metric.WIN_RATE_VS_INITIAL: MetricValue(value=0.52, lower=0.47, upper=0.57)}}
    )
    status = run.status.model_copy(update={"iterations": [*run.status.iterations[:-1], weak]})
    changed = run.model_copy(update={"status": status})
    assert "no difference is shown" in verdict(collect(changed, open_store(run.spec.storage), example_runs.START))


def test_what_a_model_wrote_is_text_and_never_markup(page: str) -> None:
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_best_and_worst_responses_stand_beside_those_of_the_initial_model(page: str, report: Report) -> None:
    assert len(report.examples) == 20
    assert page.index("Best of π3") < page.index("Worst of π3")
    assert "▲ better than π0" in page
    assert "▼ worse than π0" in page


def test_final_test_figures_have_their_intervals(page: str) -> None:
    assert "1,000 prompts" in page
    assert "+0.150 <small>[+0.130, +0.170]</small>" in page


def test_it_shows_where_the_time_went_and_what_was_dropped(page: str, report: Report) -> None:
    assert sum(time.seconds for time in report.times) == pytest.approx(622)
    assert "2 attempts" in page
    assert "prompts tied" in page


def test_lineage_goes_back_to_the_first_model_and_the_data(report: Report, run: RLHFRun) -> None:
    assert run.status is not None
    assert run.status.checkpoint is not None
    assert report.lineage is not None
    assert report.lineage.digest == run.status.checkpoint.digest
    names: list[str] = []

    def walk(node: object) -> None:
        names.append(f"{node.label} {node.location}")  # type: ignore[attr-defined]
        for child in node.inputs:  # type: ignore[attr-defined]
            walk(child)

    walk(report.lineage)
    assert "model file:///models/tiny@abc" in names
    assert "prompts file:///data/prompts.jsonl" in names
    assert len([name for name in names if name.startswith("π2, policy")]) == 2, "once whole, once as above"


def test_a_run_without_figures_has_a_report_that_says_so(tmp_path: Path) -> None:
    run = example_runs.failed("broken", f"file://{tmp_path}/store")
    page = render(collect(run, open_store(run.spec.storage), example_runs.START))
    assert "there is no best iterate yet" in page
    assert "no space left on the device" in page
    assert _elements(page).open == []


def test_artifacts_that_are_gone_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = example_runs.finished("purged", f"file://{tmp_path}/store")
    report = collect(run, open_store(run.spec.storage), example_runs.START)
    assert "iteration 1, train: its artifact is gone from the store, by retention or by hand" in report.missing
    assert "Win rate against π0" in render(report)


def test_a_run_at_work_shows_the_curves_of_its_training_so_far(tmp_path: Path) -> None:
    run = example_runs.at_work("busy", f"file://{tmp_path}/store")
    run = run.model_copy(update={"metadata": run.metadata.model_copy(update={"uid": "u1"})})
    store = open_store(run.spec.storage)
    reference = RunRef(namespace=run.metadata.namespace, name="busy", uid="u1")
    before = collect(run, store, example_runs.START)
    assert not [curve for curve in before.curves if curve.iteration == 2], "it has just begun"

    store.put(metrics_key(reference, 2, StageName.TRAIN), b'{"step": 1, "loss": 0.7}\n{"step": 2, "loss": 0.6}\n')
    report = collect(run, store, example_runs.START)

    assert [(curve.iteration, curve.key, curve.points) for curve in report.curves] == [(2, "loss", ((1, 0.7), (2, 0.6)))]
    assert re.search(r"Loss by step.*π2: from 0.70* to 0.60*", render(report))


def test_a_half_written_line_of_metrics_is_passed_over() -> None:
    curves = read_curves(b'{"step": 1, "loss": 0.7}\n{"step": 2, "loss": NaN}\n{"step": 3, "lo', 1)
    assert [(curve.key, curve.points) for curve in curves] == [("loss", ((1, 0.7),))]


@pytest.mark.parametrize("values", [[0.0], [0.5, 0.5], [-3.0, 7.0], [1e-9, 2e-9], [12345.0, 99999.0], [0.5, 0.731]])
def test_axes_have_round_ends_that_hold_every_value(values: list[float]) -> None:
    low, high, ticks = charts.nice_range(values)
    assert low <= min(values)
    assert high >= max(values)
    assert low < high
    assert 2 <= len(ticks) <= 8


def test_a_training_of_one_step_is_a_dot() -> None:
    assert "<circle" in charts.steps_chart("Loss", [("π1", [(1, 0.69)])])


def test_a_long_training_stays_a_small_curve_and_keeps_its_end() -> None:
    points = [(step, 1.0 / step) for step in range(1, 10_001)]
    thinned = charts.thin(points)
    assert len(thinned) <= 200
    assert thinned[-1][0] == 10_000


def test_the_command_writes_the_file_and_prints_its_path(run: RLHFRun, tmp_path: Path) -> None:
    example_runs.save(tmp_path, run)
    done = rlhfctl("report", "quickstart", "--state", str(tmp_path))
    assert (done.code, done.err) == (0, "")
    path = Path(done.out.strip())
    assert path == tmp_path / "runs" / "quickstart" / "report.html"
    assert path.read_text().startswith("<!doctype html>")
    assert rlhfctl("report", "quickstart", "--state", str(tmp_path), "-o", "-").out.startswith("<!doctype html>")


def test_a_folder_that_cannot_be_written_is_named(run: RLHFRun, tmp_path: Path) -> None:
    example_runs.save(tmp_path, run)
    (tmp_path / "file").write_text("")
    done = rlhfctl("report", "quickstart", "--state", str(tmp_path), "-o", str(tmp_path / "file" / "report.html"))
    assert done.code == Exit.RUN_FAILED
    assert "cannot be written" in done.err
    assert "choose another file with -o" in done.err


def test_the_page_is_small(page: str) -> None:
    assert len(page.encode()) < 200_000
    assert not re.search(r"[A-Za-z0-9+/]{200,}", page), "an embedded binary"


def test_a_report_is_written_through_a_link_and_into_a_pipe_and_replaces_neither(tmp_path: Path) -> None:
    """As root, /dev/stdout would be a file afterwards."""
    state = LocalState(tmp_path / ".rlhf")
    example_runs.save(state.folder, example_runs.finished("tiny", state.store_url))
    latest, page, pipe = tmp_path / "latest.html", tmp_path / "page.html", tmp_path / "pipe"
    latest.symlink_to(page)
    page.touch()
    os.mkfifo(pipe)
    command = ("report", "tiny", "--state", str(state.folder), "-o")
    assert rlhfctl(*command, str(latest)).code == 0
    assert latest.is_symlink()
    assert "<html" in page.read_text()
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        assert rlhfctl(*command, str(pipe)).code == 0
        assert "<html" in read.result()
    assert pipe.is_fifo()


def _with_benchmark(run: RLHFRun, iteration: int, content: bytes | None, **stage: object) -> RLHFRun:
    """The run, with a benchmark of this iterate that has sealed `content`, or None."""
    assert run.status is not None
    done = StageStatus(name=StageName.BENCHMARK, phase=Phase.SUCCEEDED, beside=True)
    if content is not None:
        writer = ArtifactWriter(open_store(run.spec.storage), ArtifactKind.BENCHMARK, example_runs.digest("benchmark", content))
        writer.add_bytes(content, "benchmark.json")
        ref = writer.seal(stage=StageName.BENCHMARK, inputs=[], config={}, iterate=iteration).ref
        done = done.model_copy(update={"artifact": ArtifactStatus(url="x", digest=ref.digest, fingerprint=ref.fingerprint)})
    return run.model_copy(update={"status": with_stage(run.status, iteration or None, done.model_copy(update=stage))})


def _task(value: float, **fields: object) -> dict[str, object]:
    metrics = {"exact_match/strict-match": {"value": value, "stderr": 0.0123}}
    return {"name": "gsm8k<b>", "metrics": metrics, "shots": 5, "samples": 1319, "ofSamples": 1319, "truncated": 0, **fields}


def test_benchmarks_are_a_row_a_metric_and_a_column_an_iterate(run: RLHFRun, page: str) -> None:
    assert "Benchmarks" not in page
    changed = run
    for iteration, task in ((0, _task(0.742)), (3, _task(0.807, samples=100, truncated=7))):
        changed = _with_benchmark(changed, iteration, json.dumps({"tasks": [task]}).encode())
    told = render(collect(changed, open_store(run.spec.storage), example_runs.START))
    assert _elements(told).open == []
    section = told[told.index("<h2>Benchmarks") : told.index("<h2>Responses")]
    assert re.findall(r"<th[^>]*>([^<]*)", section) == ["task", "metric", "shots", "questions", "π0", "π3"]
    assert "gsm8k&lt;b&gt;" in section
    assert section.count("<tr>") == 2
    assert "0.742 <small>± 0.012</small>" in section
    assert "0.807" in section
    assert "Only the first questions were asked of gsm8k&lt;b&gt;." in section
    assert "lost their beginning" in section


def test_a_benchmark_that_failed_or_cannot_be_read_is_named(run: RLHFRun) -> None:
    changed = _with_benchmark(run, 1, None, phase=Phase.FAILED, message="The model has no room for a question.")
    changed = _with_benchmark(changed, 2, b'{"tasks": [{}]}')
    found = collect(changed, open_store(run.spec.storage), example_runs.START)
    failed, unreadable = found.missing
    assert "the run went on without it. The model has no room for a question." in failed
    assert "benchmark.json cannot be read (tasks.0.name: Field required)" in unreadable


def _with_reward_model(run: RLHFRun, content: bytes | None, stage: StageName = StageName.REWARD) -> RLHFRun:
    """The run, with a reward model that `stage` has trained and whose artifact has `content` as held_out.json, or none."""
    assert run.status is not None
    writer = ArtifactWriter(open_store(run.spec.storage), ArtifactKind.REWARD_MODEL, example_runs.digest(stage, content))
    writer.add_bytes(b"", "model.safetensors")
    if content is not None:
        writer.add_bytes(content, "held_out.json")
    ref = writer.seal(stage=stage, inputs=[], config={}).ref
    artifact = ArtifactStatus(url="x", digest=ref.digest, fingerprint=ref.fingerprint)
    done = StageStatus(name=stage, phase=Phase.SUCCEEDED, artifact=artifact)
    return run.model_copy(update={"status": with_stage(run.status, None, done)})


def _held_out(**fields: object) -> bytes:
    accuracy = {"value": 0.731, "lower": 0.702, "upper": 0.758}
    part = {"pairs": 500, "accuracy": accuracy, "byLength": 0.64}
    figures = {
        **part,
        "pairs": 1000,
        "prompts": 812,
        "meanOfSubsets": 0.655,
        "expectedCalibrationError": 0.0421,
        "calibration": [
            {"lower": 0.4, "predictions": 77, "predicted": 0.45, "observed": 0.4},
            {"lower": 0.5, "predictions": 0},
            {"lower": 0.9, "predictions": 413, "predicted": 0.957, "observed": 0.868},
        ],
        "lengths": [{"name": "ChosenLonger", **part}],
        "subsets": [{"name": "bench/math<b>", **part}, {"name": "bench/code", **part}],
        "ofANewerVersion": 1,
    }
    return json.dumps(figures | fields).encode()


def test_a_trained_judge_has_tables_of_its_own(run: RLHFRun) -> None:
    both = _with_reward_model(_with_reward_model(run, _held_out()), _held_out(prompts=77), StageName.JUDGE)
    told = render(collect(both, open_store(run.spec.storage), example_runs.START))
    assert _elements(told).open == []
    of_reward, of_judge = told[told.index("<h2>Reward model") : told.index("<h2>Judge")], told[told.index("<h2>Judge") :]
    assert "pairs of 812 prompts" in of_reward
    assert "pairs of 77 prompts" in of_judge[: of_judge.index("<h2>Responses")]
    alone = render(collect(_with_reward_model(run, _held_out(), StageName.JUDGE), open_store(run.spec.storage), example_runs.START))
    assert "<h2>Judge" in alone
    assert "<h2>Reward model" not in alone


def test_a_trained_reward_model_has_its_accuracy_beside_that_of_length_and_its_calibration(run: RLHFRun, page: str) -> None:
    assert "Reward model</h2>" not in page
    told = render(collect(_with_reward_model(run, _held_out()), open_store(run.spec.storage), example_runs.START))
    assert _elements(told).open == []
    section = told[told.index("<h2>Reward model") : told.index("<h2>Responses")]
    assert "pairs of 812 prompts" in section
    assert "Mean of the 2 subsets: 0.655." in section
    rows = re.findall(r"<td>([^<]*)</td>", section)
    assert rows == ["all", "chosen is longer", "bench/math&lt;b&gt;", "bench/code", "from 0.900"]
    assert "0.731 <small>0.702 to 0.758</small>" in section
    assert "0.640" in section
    assert "0.957" in section
    assert "Expected calibration error: 0.042." in section


def test_a_reward_model_without_held_out_pairs_has_no_table_and_one_that_cannot_be_read_is_named(run: RLHFRun) -> None:
    plain = collect(_with_reward_model(run, None), open_store(run.spec.storage), example_runs.START)
    assert plain.held_out is None
    assert not [sentence for sentence in plain.missing if "held_out" in sentence]
    broken = collect(_with_reward_model(run, _held_out(pairs="many")), open_store(run.spec.storage), example_runs.START)
    assert broken.held_out is None
    assert [sentence for sentence in broken.missing if "held_out.json cannot be read (pairs:" in sentence]
