"""Whoever sets a tracker's variables has its curves there; whatever it does, the stage goes on."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import ResolveWork, StageResult
from rlhf_api.words import ArtifactKind, StageName
from rlhf_trainer.tracking import following
from rlhf_trainer.tracking.following import followed, tell_result, without_secrets
from rlhf_trainer.tracking.origin import Origin, flat
from rlhf_trainer.tracking.trackers import TRACKERS, Tracker, asked_for, not_installed
from support.documents import ROOT
from support.stages import RUN, config_of
from support.waiting import wait_until

ORIGIN = Origin(RUN, "train-1", {"stage": "train", "optimization": {"epochs": 2}})
CANARY = "0123456789abcdef0123456789abcdef01234567"


def lines(first: int, last: int) -> str:
    return "".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in range(first, last + 1))


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    file = tmp_path / "metrics.jsonl"
    file.write_text(lines(1, 3))
    return file


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of trackers that are not in the locks."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("wandb", "mlflow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "support" / "fake_clients"))


def follow(file: Path, environment: Mapping[str, str], origin: Origin = ORIGIN) -> None:
    with followed(origin, file, environment, every=0.01):
        pass


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """As TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def wandb_runs(folder: Path) -> dict[str, Any]:
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def test_tensorboard_reads_every_step_of_a_training(metrics: Path, tmp_path: Path) -> None:
    follow(metrics, {"TENSORBOARD_LOG_DIR": str(tmp_path / "tb")})
    found = scalars(tmp_path / "tb" / "default" / "quickstart" / "u1" / "train-1")
    assert [step for step, _ in found["train-1/loss"]] == [1, 2, 3]
    assert [value for _, value in found["train-1/loss"]] == pytest.approx([1, 1 / 2, 1 / 3])


def test_tensorboard_shows_no_step_twice_of_a_training_that_was_resumed(metrics: Path, tmp_path: Path) -> None:
    environment = {"TENSORBOARD_LOG_DIR": str(tmp_path / "tb")}
    follow(metrics, environment)
    metrics.write_text(lines(1, 5))
    follow(metrics, environment)
    (steps,) = scalars(tmp_path / "tb" / "default" / "quickstart" / "u1" / "train-1").values()
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("clients")
def test_weights_and_biases_has_the_names_of_the_run_and_no_step_twice(
    metrics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    follow(metrics, {"WANDB_MODE": "offline"})
    metrics.write_text(lines(1, 5))
    follow(metrics, {"WANDB_MODE": "offline"})
    (kept,) = wandb_runs(tmp_path).items()
    assert kept[0] == "u1-train-1"
    named = {"project": "default", "name": "quickstart", "group": "u1", "job_type": "train-1", "config": ORIGIN.config}
    assert kept[1]["init"] == named
    assert [step for step, _ in kept[1]["history"]] == [1, 2, 3, 4, 5]
    assert kept[1]["history"][1][1] == {"train-1/loss": 0.5}
    assert kept[1]["finished"] == 2


@pytest.mark.usefixtures("clients")
def test_mlflow_has_the_names_of_the_run_and_no_step_twice(metrics: Path, tmp_path: Path) -> None:
    environment = {"MLFLOW_TRACKING_URI": f"file://{tmp_path}/mlflow.json"}
    follow(metrics, environment)
    metrics.write_text(lines(1, 5))
    follow(metrics, environment)
    kept = json.loads((tmp_path / "mlflow.json").read_text())
    (run,) = kept["runs"]
    assert (run["experiment"], run["name"]) == ("default", "quickstart")
    assert run["tags"] == {"rlhf.uid": "u1", "rlhf.series": "train-1"}
    assert run["params"] == {"stage": "train", "optimization.epochs": "2"}
    assert [step for key, _, step in run["metrics"] if key == "train-1/loss"] == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("clients")
@pytest.mark.parametrize("found", [False, True])
def test_the_metrics_of_a_stage_are_one_point_an_iteration(found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the stage made them, or was found sealed."""
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    work = ResolveWork(target=StageName.EVALUATE, kind=ArtifactKind.EVALUATION)
    for iteration in (1, 2, 2):
        config = config_of(work, Storage(url=f"file://{tmp_path}/store"), iteration=iteration)
        value = MetricValue(value=0.5 + iteration / 10, lower=0.5, upper=0.9)
        result = StageResult(stage=StageName.EVALUATE, found=found, metrics={Metric.WIN_RATE_VS_INITIAL: value})
        tell_result(config, result, tmp_path, {"WANDB_API_KEY": CANARY})
    (kept,) = wandb_runs(tmp_path).values()
    assert [step for step, _ in kept["history"]] == [1, 2], "an attempt that is repeated tells nothing again"
    name = "evaluate/winRateVsInitial"
    assert kept["history"][0][1] == {name: 0.6, f"{name}/lower": 0.5, f"{name}/upper": 0.9}


@pytest.mark.usefixtures("clients")
def test_a_key_is_in_no_log(metrics: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_WANDB_ERROR", f"401 from https://user:{CANARY}@api.example.com, key {CANARY}\nsecond line")
    monkeypatch.setattr(following, "END_SECONDS", 0.2)
    with caplog.at_level(logging.DEBUG):
        follow(metrics, {"WANDB_API_KEY": CANARY})
    assert "Weights & Biases is not told all of train-1, and the stage goes on: ConnectionError: 401" in caplog.text
    assert "was not told 3 points" in caplog.text
    assert CANARY not in caplog.text


def test_the_user_of_a_tracking_uri_is_in_no_message() -> None:
    said = without_secrets(f"no route to http://me:{CANARY}@mlflow.example.com:5000/api", {})
    assert said == "no route to http://…@mlflow.example.com:5000/api"


class Odd:
    """A client that misbehaves."""

    told = -1

    def __init__(self, refuses: int | None = None, hangs: threading.Event | None = None) -> None:
        self.refuses, self.hangs = refuses, hangs
        self.steps: list[int] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self.hangs is not None:
            self.hangs.wait()
        if step == self.refuses:
            raise ValueError("such a step")
        self.steps.append(step)

    def close(self) -> None:
        pass


def odd(client: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker("Odd", "ODD", "json", "odd", lambda environment: True, lambda origin, environment: client)
    monkeypatch.setattr(following, "asked_for", lambda environment: [tracker])


def test_a_point_that_a_tracker_refuses_is_left_out_and_counted(
    metrics: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Odd(refuses=2)
    odd(client, monkeypatch)
    with followed(ORIGIN, metrics, {}, every=0.001):
        wait_until(lambda: 3 in client.steps, "the step behind it")
    assert client.steps == [1, 3]
    assert "Odd was not told 1 points of train-1" in caplog.text
    assert caplog.text.count("such a step") == 1


def test_a_tracker_that_hangs_does_not_hold_the_end_of_a_stage(
    metrics: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    odd(Odd(hangs=answer), monkeypatch)
    monkeypatch.setattr(following, "END_SECONDS", 0.05)
    follow(metrics, {})
    assert "Odd was not told 3 points of train-1, or is late" in caplog.text
    answer.set()


def test_trackers_are_switched_on_by_their_own_variables_alone() -> None:
    def names(environment: Mapping[str, str]) -> list[str]:
        return [tracker.name for tracker in asked_for(environment)]

    assert names({}) == []
    assert names({"WANDB_MODE": "online"}) == [], "without a key it would ask a person"
    assert names({"WANDB_API_KEY": CANARY, "WANDB_MODE": "disabled"}) == []
    assert names({"WANDB_MODE": "offline"}) == ["Weights & Biases"]
    everything = {"TENSORBOARD_LOG_DIR": "/tb", "WANDB_API_KEY": CANARY, "MLFLOW_TRACKING_URI": "http://mlflow"}
    assert names(everything) == [tracker.name for tracker in TRACKERS]


def test_a_client_that_is_not_installed_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tracker,) = not_installed({"MLFLOW_TRACKING_URI": "http://mlflow"})
    assert tracker.not_installed.startswith("MLFLOW_TRACKING_URI asks for MLflow, and its client is not installed")
    assert "Install mlflow-skinny" in tracker.not_installed


def test_nested_configurations_are_flat_for_trackers_that_know_no_nesting() -> None:
    assert flat({"a": {"b": [1, {"c": True}]}, "d": "e"}) == {"a.b.0": "1", "a.b.1.c": "True", "d": "e"}
