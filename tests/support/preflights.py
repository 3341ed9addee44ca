"""preflight of the quickstart's world, with changes to its manifest."""

from __future__ import annotations

import json
import shutil
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


def knowing(world: Path, folder: Path, pattern: str) -> Path:
    """A copy of a world whose tokenizer knows the words of this regular expression, too; to the model they are all one."""
    copy = shutil.copytree(world, folder)
    manifest = copy / "run.yaml"
    manifest.write_text(manifest.read_text().replace(str(world), str(copy)))
    file = copy / "model" / "tokenizer.json"
    normalizer = {"type": "Replace", "pattern": {"Regex": pattern}, "content": "lion"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalizer": normalizer}))
    return copy
