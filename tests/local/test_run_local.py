"""A run on one machine, from its manifest to its end, with stages that are real processes and do no work."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_api.words import Phase, Reason, StageName
from rlhf_operator.local import LocalEventKind
from support.local_runs import LocalWorld
from support.runs import ASKED


@pytest.fixture
def world(tmp_path: Path) -> LocalWorld:
    return LocalWorld(tmp_path)


WHOLE = ["preflight-0", "evaluate-0", "sample-1", "label-1", "reference-1", "train-1", "evaluate-1", "finalize-0"]


def test_a_run_goes_through_its_stages_and_succeeds(world: LocalWorld) -> None:
    run = world.run()
    assert run.status is not None
    assert run.status.phase is Phase.SUCCEEDED
    assert run.status.best_iteration == 1
    assert run.status.checkpoint is not None
    assert world.starts() == WHOLE
    assert world.state.load("tiny") == run


def test_a_finished_run_does_not_start_again(world: LocalWorld) -> None:
    first = world.run()
    assert world.run() == first
    assert world.starts() == WHOLE


def test_a_judge_that_the_run_trains_has_a_stage_a_log_and_a_name_as_any_other(world: LocalWorld) -> None:
    optimization = {"learningRate": 1e-4, "globalBatchSize": 8}
    data = [{"name": "others", "uri": "hf://example/others"}]
    judge = {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": data, "optimization": optimization}}}
    world.plan("judge-0", "die 9")
    run = world.run(world.manifest(evaluate={"judge": judge}))
    assert run.status is not None
    assert run.status.phase is Phase.SUCCEEDED
    # What died is looked up before it is done again.
    assert world.starts() == ["preflight-0", "judge-0", "resolve:judge-0", "judge-0", *WHOLE[1:]]
    [trained] = [stage for stage in run.status.stages if stage.name is StageName.JUDGE]
    assert trained.artifact is not None
    assert "/reward-model/" in trained.artifact.url
    assert {path.name for path in world.state.log_files("tiny", stage=StageName.JUDGE)} >= {"judge-0-1.log"}
    run = world.run(run)
    assert world.starts().count("judge-0") == 2


def test_logs_lie_by_stage_iteration_attempt_and_shard(world: LocalWorld) -> None:
    world.run(world.manifest(sample={"shards": 2, "parallelism": 2}))
    names = {path.name for path in world.state.log_files("tiny")}
    assert {"preflight-0-1.log", "sample-1-1-0.log", "sample-1-1-1.log", "train-1-1.log"} <= names
    [log] = world.state.log_files("tiny", stage=StageName.TRAIN)
    assert log.read_text() == "fake train-1 attempt 1\n"


def test_an_application_error_is_tried_again_and_told(world: LocalWorld) -> None:
    world.plan("train-1", "exit 1", "exit 1")
    run = world.run()
    assert run.status is not None
    assert run.status.phase is Phase.SUCCEEDED
    assert world.starts().count("train-1") == 3
    [train] = [stage for stage in run.status.iterations[0].stages if stage.name is StageName.TRAIN]
    assert (train.attempt, train.application_retries, train.infrastructure_retries) == (3, 2, 0)
    assert world.kinds().count(LocalEventKind.RETRYING) == 2


def test_a_spent_budget_fails_the_run_with_the_stages_own_words(world: LocalWorld) -> None:
    world.plan("train-1", *["exit 1"] * 9)
    run = world.run(world.manifest(retry={"application": 1, "backoffSeconds": 0}))
    assert run.status is not None
    assert run.status.phase is Phase.FAILED
    assert world.starts().count("train-1") == 2
    assert "It was planned to fail with 1." in run.status.message
    assert Reason.RETRY_BUDGET_EXHAUSTED in {condition.reason for condition in run.status.conditions}


def test_a_configuration_error_fails_the_run_at_once(world: LocalWorld) -> None:
    world.plan("preflight-0", "exit 64")
    run = world.run()
    assert run.status is not None
    assert run.status.phase is Phase.FAILED
    assert world.starts() == ["preflight-0"]
    assert "It was planned to fail with 64." in run.status.message


def test_a_failed_run_begins_anew_and_finds_its_finished_stages(world: LocalWorld) -> None:
    world.plan("train-1", "exit 64")
    failed = world.run()
    again = world.run()
    assert again.metadata.uid != failed.metadata.uid
    assert again.status is not None
    assert again.status.phase is Phase.SUCCEEDED
    assert sorted(world.notes("sealed")) == sorted(stage for stage in WHOLE if stage not in ("preflight-0", "finalize-0"))


def test_shards_run_together_as_far_as_cores_allow(world: LocalWorld) -> None:
    world.cores = 2
    world.plan("sample-1", *["environment"] * 3)
    pod = {"resources": {"requests": {"cpu": 1}}}
    run = world.run(world.manifest(sample={"shards": 3, "parallelism": 3, "pod": pod}))
    assert run.status is not None
    assert run.status.phase is Phase.SUCCEEDED
    environments = [(world.folder / "fake" / f"environment-{index}").read_text() for index in range(3)]
    assert all('"OMP_NUM_THREADS": "1"' in environment for environment in environments)


def test_a_failed_shard_is_tried_again_alone(world: LocalWorld) -> None:
    world.plan("sample-1-1", "exit 1", "exit 75")
    run = world.run(world.manifest(sample={"shards": 2, "parallelism": 2}))
    assert run.status is not None
    assert run.status.phase is Phase.SUCCEEDED
    shards = [line.split()[2] for line in world.notes("starts") if line.startswith("sample-1 ")]
    assert sorted(shards) == ["0", "1", "1", "1"]
    [sample] = [stage for stage in run.status.iterations[0].stages if stage.name is StageName.SAMPLE]
    assert (sample.attempt, sample.application_retries, sample.infrastructure_retries) == (1, 1, 1)


def test_a_run_that_asks_people_waits_without_a_process_and_goes_on_when_they_have_answered(world: LocalWorld) -> None:
    asking = {**ASKED, "iterations": 1}
    run = world.run(world.manifest(**asking))
    assert run.status is not None
    assert run.status.phase is Phase.PAUSED
    assert "Iteration 1 waits for people's answers" in run.status.message
    run = world.run(world.manifest(**asking, annotations=[{"iteration": 1, "digest": "a" * 64}]))
    assert run.status is not None
    assert run.status.phase is Phase.SUCCEEDED
    assert [stage.name.value for stage in run.status.iterations[0].stages][:3] == ["sample", "ask", "label"]


def test_a_missing_program_fails_the_run_and_says_so(world: LocalWorld) -> None:
    run = world.run(world.manifest(retry={"application": 0}), command=lambda config, file: ["/no/such/program"])
    assert run.status is not None
    assert run.status.phase is Phase.FAILED
    [log] = world.state.log_files("tiny")
    assert "/no/such/program: No such file or directory" in log.read_text()


def test_pause_returns_and_an_approval_goes_on(world: LocalWorld) -> None:
    gates = [{"name": "look", "metric": "winRateVsInitial", "max": 0.55, "action": "Pause"}]
    run = world.run(world.manifest(gates=gates))
    assert run.status is not None
    assert run.status.phase is Phase.PAUSED
    assert "{gate: look, iteration: 1}" in run.status.message
    run = world.run(world.manifest(gates=gates, approvals=[{"gate": "look", "iteration": 1}]))
    assert run.status is not None
    assert run.status.phase is Phase.SUCCEEDED
