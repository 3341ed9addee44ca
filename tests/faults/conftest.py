"""The mini world, and one whole run of it that the cases share: each takes over what it does not put to the test."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.words import Phase
from support.mini import Case, MakeCase, SealedRun, artifacts_of, make_world, read_manifest, tokens_of, write_manifest
from support.s3 import S3Server

#: So many steps, and a checkpoint so often, that a training has seconds to go when its first checkpoint is seen.
CHANGES = {
    "spec.sft.optimization.globalBatchSize": 32,
    "spec.reward.bradleyTerry.train.optimization.globalBatchSize": 16,
    "spec.train.optimization.globalBatchSize": 8,
    "spec.train.optimization.epochs": 12,
    "spec.train.checkpointEverySteps": 10,
}


@pytest.fixture(scope="session")
def mini_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest."""
    return make_world(tmp_path_factory.mktemp("mini") / "world", size="mini")


@pytest.fixture(scope="session")
def new_case(mini_world: Path, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> MakeCase:
    def make(changes: dict[str, Any] | None = None) -> Case:
        folder = tmp_path_factory.mktemp("case")
        storage = s3_server.storage(prefix=f"{folder.name}-{uuid.uuid4().hex[:8]}")
        fields = {**CHANGES, "spec.storage": storage.to_wire(), **(changes or {})}
        return Case(folder, write_manifest(folder / "run.yaml", read_manifest(mini_world), fields), s3_server, storage)

    return make


@pytest.fixture(scope="session")
def sealed(new_case: MakeCase) -> SealedRun:
    """A run in which nothing goes wrong."""
    case = new_case()
    done = case.run()
    assert done.code == 0, done.out
    status = case.status()
    assert status.phase is Phase.SUCCEEDED
    artifacts = artifacts_of(status)
    tokens = tokens_of(case.manifests())
    assert len(tokens) == len(("sft-0", "reward-0"))
    assert sorted(case.manifests()) == sorted([*artifacts.values(), *tokens])
    return SealedRun(case, artifacts, tokens)


@pytest.fixture
def case(new_case: MakeCase, sealed: SealedRun) -> MakeCase:
    """A run beside the sealed one that has the artifacts of these stages already."""

    def make(stages: Iterable[str], changes: dict[str, Any] | None = None) -> Case:
        one = new_case(changes)
        sealed.copy(one.storage, stages)
        return one

    return make
