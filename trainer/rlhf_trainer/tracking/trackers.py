"""Which trackers there are, and which of them the environment switches on. There is no field for them: nothing depends on them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .clients.mlflow import MLflow
from .clients.tensorboard import TensorBoard
from .clients.wandb import WeightsAndBiases
from .origin import Client, Origin


@dataclass(frozen=True)
class Tracker:
    name: str
    variable: str
    """One that switches it on, for messages."""
    module: str
    """What must be there to be imported."""
    package: str
    on: Callable[[Mapping[str, str]], bool]
    open: Callable[[Origin, Mapping[str, str]], Client]

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    @property
    def not_installed(self) -> str:
        return (
            f"{self.variable} asks for {self.name}, and its client is not installed: the run goes on without it. Install "
            f"{self.package} into a layer of your own on the image (docs/tracking.md), or take the variable away."
        )


def _wandb(environment: Mapping[str, str]) -> bool:
    mode = environment.get("WANDB_MODE")
    return mode != "disabled" and (bool(environment.get("WANDB_API_KEY")) or mode == "offline")


TRACKERS = (
    Tracker(
        "TensorBoard",
        "TENSORBOARD_LOG_DIR",
        "tensorboard",
        "tensorboard",
        lambda environment: bool(environment.get("TENSORBOARD_LOG_DIR")),
        TensorBoard,
    ),
    Tracker("Weights & Biases", "WANDB_API_KEY or WANDB_MODE", "wandb", "wandb", _wandb, WeightsAndBiases),
    Tracker(
        "MLflow",
        "MLFLOW_TRACKING_URI",
        "mlflow",
        "mlflow-skinny",
        lambda environment: bool(environment.get("MLFLOW_TRACKING_URI")),
        MLflow,
    ),
)


def asked_for(environment: Mapping[str, str]) -> list[Tracker]:
    """By these variables, installed or not."""
    return [tracker for tracker in TRACKERS if tracker.on(environment)]


def not_installed(environment: Mapping[str, str]) -> list[Tracker]:
    """Asked for, and nothing is told to them."""
    return [tracker for tracker in asked_for(environment) if not tracker.installed]
