"""Weights & Biases: project = namespace, name = run, group = uid; a run of theirs is one series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf_trainer.tracking.origin import Origin


class WeightsAndBiases:
    def __init__(self, origin: Origin, environment: Mapping[str, str]) -> None:
        import wandb

        run = origin.run
        # Of the process that was started for it, nothing of ours hangs on: it must not take our signals or print into our log.
        settings = wandb.Settings(silent=True, console="off")
        self._run: Any = wandb.init(
            project=environment.get("WANDB_PROJECT") or run.namespace,
            name=run.name,
            group=run.uid,
            job_type=origin.name,
            id=f"{run.uid[:40]}-{origin.name}",
            resume="allow",
            config=dict(origin.config),
            settings=settings,
        )

    @property
    def told(self) -> int:
        # Theirs is the next step; 0 of a run that is new, and of one that has step 0 alone, which they then refuse by themselves.
        return int(self._run.step) - 1

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
