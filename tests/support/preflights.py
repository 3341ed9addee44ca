"""preflight of the quickstart's world, with changes to its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.storage import Storage
from rlhf_api.stage import PreflightWork, StageResult
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.stages import preflight
from support.stages import config_of, context_of, spec_of_world


def run(world: Path, storage: Storage, scratch: Path, **changes: Any) -> StageResult:
    spec = spec_of_world(world, storage=storage.to_wire(), **changes)
    config = config_of(PreflightWork(spec=spec.to_wire()), storage, iteration=None)
    return preflight.run(context_of(config, scratch))


def problems(world: Path, storage: Storage, scratch: Path, **changes: Any) -> str:
    with pytest.raises(ConfigurationProblem) as raised:
        run(world, storage, scratch, **changes)
    return str(raised.value)


def uri(path: Path) -> dict[str, str]:
    return {"uri": f"file://{path}"}
