"""A whole run with benchmarks: what preflight pins of their tasks, what each iterate's stage seals, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.metrics import BenchmarkMetric
from rlhf_api.stage import BenchmarkWork, ResolveWork, StageConfig
from rlhf_api.words import ArtifactKind, StageExit, StageName
from rlhf_operator.core.chain.references import LM_EVAL
from rlhf_operator.core.plan.fingerprint import fingerprint
from rlhf_store import open_artifact, open_store
from support.benchmark_tasks import QUESTIONS, write_choices
from support.stages import ForkServer, RealRun, run_whole_chain

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_choices(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def benchmarked_run(real_run: RealRun, task: str, fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    """All but the benchmarks it finds in the store, of `real_run`."""
    lm_eval = {"tasks": [task], "numFewshot": 1, "limit": 8}
    spec = real_run.spec.model_validate(
        {**real_run.spec.to_wire(), "evaluate": {**real_run.spec.evaluate.to_wire(), "lmEval": lm_eval}}
    )
    return run_whole_chain(spec, tmp_path_factory.mktemp("benchmarked"), fork_server)


def sealed(run: RealRun, iteration: int | None) -> dict[str, Any]:
    ref = run.result(StageName.BENCHMARK, iteration).artifact
    assert ref is not None
    content: dict[str, Any] = json.loads(open_artifact(open_store(run.storage), ref).read("benchmark.json"))
    return content


def test_each_iterate_is_benchmarked_and_nothing_else_is_computed_again(benchmarked_run: RealRun) -> None:
    assert {key for key in benchmarked_run.results if key[1] is StageName.BENCHMARK} == {
        (iteration, StageName.BENCHMARK) for iteration, stage in benchmarked_run.results if stage is StageName.EVALUATE
    }
    computed = {stage for (_, stage), result in benchmarked_run.results.items() if result.artifact is not None and not result.found}
    assert computed == {StageName.BENCHMARK}


def test_the_figures_are_those_of_the_questions_that_were_asked(benchmarked_run: RealRun) -> None:
    for iteration in (None, 1):
        [found] = sealed(benchmarked_run, iteration)["tasks"]
        assert (found["name"], found["shots"], found["samples"], found["ofSamples"]) == ("choices", 1, 8, len(QUESTIONS))
        accuracy = found["metrics"]["acc"]
        assert accuracy["value"] * 8 == pytest.approx(round(accuracy["value"] * 8))
        assert accuracy["higherIsBetter"]
        assert benchmarked_run.result(StageName.BENCHMARK, iteration).counts == {"samples": 8, "truncated": found["truncated"]}


def test_tasks_that_changed_since_preflight_are_refused_and_not_measured(
    benchmarked_run: RealRun, task: str, fork_server: ForkServer, tmp_path: Path
) -> None:
    config = benchmarked_run.config(StageName.BENCHMARK)
    assert isinstance(config.work, BenchmarkWork)
    assert config.work.tasks_revision == benchmarked_run.resolved[LM_EVAL]
    data = Path(task).with_suffix(".jsonl")
    before = data.read_text()
    data.write_text("".join(before.splitlines(keepends=True)[1:]))
    try:
        ended = fork_server.run(_another(config), tmp_path, 0)
    finally:
        data.write_text(before)
    assert ended.code == StageExit.CONFIGURATION
    assert ended.result is not None
    assert "are not those that preflight found" in (ended.result.problem or "")


def test_a_task_that_nobody_knows_is_refused_by_preflight_with_the_names_near_it(
    real_run: RealRun, fork_server: ForkServer, tmp_path: Path
) -> None:
    wire = real_run.config(StageName.PREFLIGHT, None).to_wire()
    wire["work"]["spec"]["evaluate"]["lmEval"] = {"tasks": ["arc_eazy", str(tmp_path / "absent.yaml")]}
    ended = fork_server.run(StageConfig.model_validate(wire), tmp_path, 0)
    assert ended.code == StageExit.CONFIGURATION
    assert ended.result is not None
    problem = ended.result.problem or ""
    assert "arc_eazy" in problem
    assert "arc_easy" in problem
    assert "absent.yaml" in problem


def test_what_a_gate_reads_is_in_the_result_whether_measured_now_or_found(
    benchmarked_run: RealRun, fork_server: ForkServer, tmp_path: Path
) -> None:
    config = _asking(benchmarked_run.config(StageName.BENCHMARK), "acc")
    assert config.fingerprint == benchmarked_run.config(StageName.BENCHMARK).fingerprint
    accuracy = sealed(benchmarked_run, config.iteration)["tasks"][0]["metrics"]["acc"]
    looking = config.model_copy(update={"work": ResolveWork(target=StageName.BENCHMARK, kind=ArtifactKind.BENCHMARK)})
    for number, asked in enumerate((config, looking)):
        ended = fork_server.run(asked, tmp_path / str(number), 0)
        assert ended.result is not None
        [value] = ended.result.benchmarks
        assert (ended.result.found, value.task, value.metric, value.value) == (True, "choices", "acc", accuracy["value"])
        assert value.upper == pytest.approx(accuracy["value"] + 1.96 * accuracy["stderr"], rel=1e-5)
        assert not value.less_is_better


def test_a_gate_on_a_figure_that_was_not_measured_is_refused_with_those_that_were(
    benchmarked_run: RealRun, fork_server: ForkServer, tmp_path: Path
) -> None:
    ended = fork_server.run(_asking(benchmarked_run.config(StageName.BENCHMARK), "acc_nrom"), tmp_path, 0)
    assert ended.code == StageExit.CONFIGURATION
    assert ended.result is not None
    assert ended.result.problem == ("A gate reads acc_nrom of choices, and that task measures no acc_nrom; write acc.")


def _asking(config: StageConfig, metric: str) -> StageConfig:
    """As a run with a gate on this metric starts the stage."""
    asked = config.execution.model_copy(update={"benchmarks": [BenchmarkMetric(task="choices", metric=metric)]})
    return config.model_copy(update={"execution": asked})


def _another(config: StageConfig) -> StageConfig:
    """As `config`, of a work that no artifact is sealed of."""
    assert isinstance(config.work, BenchmarkWork)
    work = config.work.model_copy(update={"iterate": 7})
    return config.model_copy(update={"work": work, "fingerprint": fingerprint(work, config.seed)})
