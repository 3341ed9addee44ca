"""What every stage is given: its configuration, its store, its place to work."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rlhf_api.stage import ArtifactRef, StageConfig, StageResult
from rlhf_api.words import STAGE_ARTIFACT
from rlhf_store import Artifact, Store, find_artifact, open_artifact

from .progress import Progress
from .result import remove_checkpoints, result_of

_W = TypeVar("_W")


@dataclass(frozen=True)
class StageContext:
    """One stage process: its configuration, its store, its place to work."""

    config: StageConfig
    store: Store
    scratch: Path
    shard: int = 0
    progress: Progress = field(default_factory=lambda: Progress(None))

    def artifact(self, ref: ArtifactRef) -> Artifact:
        """Raises StoreError: a stage whose input is gone or damaged cannot go on."""
        return open_artifact(self.store, ref)

    def found(self) -> StageResult | None:
        """The result of this very work, where its artifact is sealed already: nothing is computed twice."""
        sealed = find_artifact(self.store, STAGE_ARTIFACT[self.config.stage], self.config.fingerprint)
        if sealed is None:
            return None
        remove_checkpoints(self.store, sealed.ref)
        return result_of(self.store, self.config, sealed, found=True)


def work_of(context: StageContext, kind: type[_W]) -> _W:
    """The work that this stage was started with. Raises TypeError for that of another stage."""
    work = context.config.work
    if not isinstance(work, kind):
        raise TypeError(f"the configuration holds {type(work).__name__}, and this stage does {kind.__name__}")
    return work
