"""What a tracker is told of where its points come from, and what is asked of a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rlhf_api.stage import RunRef, StageConfig
from rlhf_api.words import StageName
from rlhf_trainer.runtime.result import canonical_work


@dataclass(frozen=True)
class Origin:
    """One series of points: the steps of a training, or what a stage says of each iteration."""

    run: RunRef
    name: str
    """Before each key: `<stage>-<iteration>` of a training (iteration 0: the run), `<stage>` of what is told once an iteration."""
    config: Mapping[str, Any]
    """The canonical work: it names Secrets, and holds nothing of one."""

    @classmethod
    def of_training(cls, config: StageConfig) -> Origin:
        return cls(config.run, f"{config.stage}-{config.iteration or 0}", canonical_work(config))

    @classmethod
    def of_results(cls, config: StageConfig, stage: StageName) -> Origin:
        """Of a stage that another one may have looked up, whose work is then not known here, and not the same in each iteration."""
        return cls(config.run, str(stage), {})


class Client(Protocol):
    """One series in one tracker. May raise anything, and take any time."""

    @property
    def told(self) -> int:
        """The newest step that the tracker has of this series; -1: none."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None:
        """What was logged is with the tracker then."""
        ...


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted paths, for trackers that know no nesting; lists are counted from 0."""
    found: dict[str, str] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, list):
            value = {str(number): entry for number, entry in enumerate(value)}
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}.")
        else:
            found[path] = str(value)
    return found
