"""A tracker that cannot be told anything is known before a GPU is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf_trainer.preflight.machine import without_client
from support.stages import spec_of_world

SECRET = {"secretKeyRef": {"name": "wandb", "key": "key"}}


@pytest.fixture(autouse=True)
def no_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def said(world: Path, environment: dict[str, str], **changes: Any) -> list[str]:
    return [warning.partition(" asks for ")[0] for warning in without_client(spec_of_world(world, **changes), environment)]


def test_nothing_is_said_where_no_tracker_is_asked_for(world: Path) -> None:
    assert said(world, {}) == []


def test_variables_of_the_process_and_of_the_manifest_count_and_each_tracker_is_named_once(world: Path) -> None:
    pod = {"env": [{"name": "WANDB_API_KEY", "valueFrom": SECRET}]}
    assert said(world, {"MLFLOW_TRACKING_URI": "http://mlflow"}, podDefaults=pod) == [
        "WANDB_API_KEY or WANDB_MODE",
        "MLFLOW_TRACKING_URI",
    ]


def test_a_variable_that_the_manifest_empties_switches_nothing_on(world: Path) -> None:
    pod = {"env": [{"name": "MLFLOW_TRACKING_URI", "value": ""}]}
    assert said(world, {"MLFLOW_TRACKING_URI": "http://mlflow"}, podDefaults=pod) == []
