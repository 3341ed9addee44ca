"""A training stage and what may end it: one rank asked to stop, one rank killed, the stage killed, a cache of something else."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.model import ModelRef
from rlhf_api.stage import ModelInput, StageConfig, TrainWork
from rlhf_api.words import StageExit, StageName
from rlhf_store import metrics_key, open_artifact, open_store
from support.stages import Ended, Forked, ForkServer, RealRun, config_of
from support.waiting import wait_until

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def long_training(real_run: RealRun) -> StageConfig:
    """The run's training, with so many steps that there is time to do something to it, and a checkpoint every 10."""
    return training(
        real_run, optimization={"epochs": 30, "learningRate": 1e-4, "globalBatchSize": 2, "gradientCheckpointing": False}
    )


def training(real_run: RealRun, attempt: int = 1, **changes: Any) -> StageConfig:
    work = real_run.config(StageName.TRAIN).work
    assert isinstance(work, TrainWork)
    changed = TrainWork.model_validate({**work.to_wire(), **changes})
    return config_of(changed, real_run.storage, attempt=attempt, processes_per_node=2, checkpoint_every_steps=10)


def next_attempt(config: StageConfig, attempt: int) -> StageConfig:
    return config.model_copy(update={"execution": config.execution.model_copy(update={"attempt": attempt})})


def started(server: ForkServer, config: StageConfig, folder: Path, steps: int) -> Forked:
    """A training that has done so many steps since it was started."""
    stage = server.launch(config, folder)
    wait_until(lambda: stage.progress >= steps or not Path(f"/proc/{stage.pid}").exists(), f"step {steps}", seconds=240)
    return stage


def checkpoint_steps(config: StageConfig) -> list[int]:
    names = [info.key.rpartition("/")[2] for info in open_store(config.storage).list(f"checkpoint/{config.fingerprint}/")]
    return sorted(int(name.split("-")[1]) for name in names if name.startswith("step-") and name.endswith(".json"))


def lines_of(config: StageConfig, outcome: Ended) -> list[dict[str, float]]:
    assert outcome.result is not None
    assert outcome.result.artifact is not None
    data = open_artifact(open_store(config.storage), outcome.result.artifact).read("metrics.jsonl")
    return [json.loads(line) for line in data.decode().splitlines()]


def lines_in_the_store(config: StageConfig) -> list[dict[str, float]]:
    """What a reader has of a training before its artifact is sealed."""
    data = open_store(config.storage).get(metrics_key(config.run, config.iteration, config.stage))
    return [json.loads(line) for line in data.decode().splitlines()]


def test_a_training_survives_all_that_is_done_to_its_attempts(
    long_training: StageConfig, fork_server: ForkServer, tmp_path: Path
) -> None:
    """SIGTERM to one rank, SIGKILL to one rank, SIGKILL to the stage; the fourth attempt ends it: no step is missing or twice."""
    stage = started(fork_server, long_training, tmp_path / "1", 15)
    os.kill(stage.ranks()[1], signal.SIGTERM)
    stopped = stage.wait()
    assert (stopped.code, stopped.result and stopped.result.reason) == (StageExit.PREEMPTED, "Preempted")
    (at,) = checkpoint_steps(long_training)
    assert at >= 15

    stage = started(fork_server, next_attempt(long_training, 2), tmp_path / "2", at + 25)
    os.kill(stage.ranks()[1], signal.SIGKILL)
    killed = stage.wait()
    assert (killed.code, killed.result and killed.result.reason) == (137, "Killed")
    (periodic,) = checkpoint_steps(long_training)
    assert periodic % 10 == 0
    assert periodic >= at + 15

    stage = started(fork_server, next_attempt(long_training, 3), tmp_path / "3", periodic + 5)
    ranks = stage.ranks()
    assert len(ranks) == 2
    os.kill(stage.pid, signal.SIGKILL)
    assert stage.wait().code == -signal.SIGKILL
    wait_until(lambda: not any(Path(f"/proc/{rank}").exists() for rank in ranks), "the end of the ranks of a stage that was killed")

    last = fork_server.run(next_attempt(long_training, 4), tmp_path / "4")
    assert last.code == 0
    lines = lines_of(long_training, last)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines_in_the_store(long_training) == lines
    assert checkpoint_steps(long_training) == []


def test_sigterm_to_the_stage_counts_while_its_ranks_still_load(
    long_training: StageConfig, real_run: RealRun, fork_server: ForkServer, tmp_path: Path
) -> None:
    config = training(real_run, optimization={"epochs": 31, "learningRate": 1e-4, "globalBatchSize": 2})
    stage = fork_server.launch(config, tmp_path)
    wait_until(stage.ranks, "the ranks", seconds=120)
    os.kill(stage.pid, signal.SIGTERM)
    stopped = stage.wait()
    assert stopped.code == StageExit.PREEMPTED
    assert stage.progress == 0 or checkpoint_steps(config)


def test_defect_reference_log_probs_of_another_template_or_model_are_refused(
    real_run: RealRun, world: Path, fork_server: ForkServer, tmp_path: Path
) -> None:
    """As configuration, by every rank, before the weights of the policy are loaded: there are none here."""
    empty = tmp_path / "policy"
    empty.mkdir()
    for file in (world / "model").iterdir():
        if file.suffix != ".safetensors":
            (empty / file.name).write_bytes(file.read_bytes())
    work = real_run.config(StageName.TRAIN).work
    assert isinstance(work, TrainWork)

    def from_folder(folder: Path) -> dict[str, Any]:
        source = ModelInput(source=ModelRef(uri=f"file://{folder}"))
        return work.start.model_copy(update={"model": source}).to_wire()

    config = training(real_run, start=from_folder(empty), reference=from_folder(world / "model"))
    outcome = fork_server.run(config, tmp_path / "stage")
    assert outcome.result is not None
    assert (outcome.code, outcome.result.reason) == (StageExit.CONFIGURATION, "ReferenceMismatch")
    assert "nats per token" in (outcome.result.problem or "")
