"""What the stage process tells its ranks: one JSON file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from rlhf_api.base import Model
from rlhf_api.resource.compute import Optimization
from rlhf_api.resource.model import Dtype
from rlhf_api.resource.storage import Storage
from rlhf_api.resource.training import Loss

from .protocol import STOP_FILE


class ObjectiveName(StrEnum):
    SUPERVISED = "supervised"
    BRADLEY_TERRY = "bradley-terry"
    PREFERENCE = "preference"


class Guard(Model):
    """Cached reference log-probs that the trainer must reproduce before it trains (docs/design.md, "Training")."""

    reference_folder: str
    tolerance: float
    """Mean absolute difference, nats per token."""


class TrainingJob(Model):
    objective: ObjectiveName
    folder: str
    """Scratch of this job: job.json, metrics.jsonl, export/, errors by rank."""
    examples: str
    """The file of what is trained on (data.examples)."""
    model_folder: str
    """What the training starts from; its tokenizer goes into the export."""
    new_head: bool = False
    """Reward training from a language model: the head is new."""
    master_weights: str | None = None
    """A safetensors file with the fp32 weights to go on from."""
    trust_remote_code: bool = False
    dtype: Dtype
    loss: Loss | None = None
    guard: Guard | None = None
    optimization: Optimization
    deepspeed: dict[str, Any]
    """DeepSpeed's own configuration."""
    gradient_checkpointing: bool
    token_budget: int | None = None
    checkpoint_every_steps: int
    seed: int
    fingerprint: str
    storage: Storage
    attempt: int
    node: int

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def job_file(self) -> Path:
        return self.path / "job.json"

    @property
    def outcome_file(self) -> Path:
        """How the ranks ended, by torchrun."""
        return self.path / "outcome.json"

    @property
    def stop_file(self) -> Path:
        return self.path / STOP_FILE

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def export_folder(self) -> Path:
        return self.path / "export"

    def write(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self.job_file.write_text(self.model_dump_json(by_alias=True, exclude_none=True))

    @classmethod
    def read(cls, file: Path) -> TrainingJob:
        return cls.model_validate_json(file.read_text())
