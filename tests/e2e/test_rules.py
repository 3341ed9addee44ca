"""A rule of one's own, edited between two runs of one manifest: what it scored is scored again, and nothing else is done twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase
from rlhf_trainer.quickstart.world import make_world
from support.mini import NAME, artifacts_of, read_manifest, stages_of, write_manifest
from support.rlhfctl import process
from support.stages import TINY

pytestmark = pytest.mark.engine

#: In the folder where rlhfctl is called; the helper lies beside it.
RULE = """
from rlhf_trainer.quickstart.task import grade

from weights import EXACT


def score(messages, response):
    value = grade(messages, response)
    return value + EXACT * (value == 1)
"""
WEIGHTS = "EXACT = 1.0\n"
ONE_RANK = {"spec.sft.compute.processesPerNode": 1, "spec.train.compute.processesPerNode": 1}
REWARD = {"spec.reward": {"type": "Rule", "rule": {"entryPoint": "rules:score"}}}


@dataclass(frozen=True)
class Folder:
    path: Path
    manifest: Path

    @property
    def state(self) -> Path:
        return self.path / "state"

    def run(self) -> RLHFRunStatus:
        """From its beginning, with what lies in the store."""
        if (self.state / "runs" / NAME).exists():
            assert process("delete", NAME, "--state", str(self.state), "--yes").code == 0
        done = process("run", "--local", "--state", str(self.state), str(self.manifest), cwd=self.path)
        assert done.code == 0, done.err
        return RLHFRunStatus.model_validate_json((self.state / "runs" / NAME / "status.json").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    manifest = make_world(tmp_path / "world", 0, TINY)
    write_manifest(manifest, read_manifest(manifest), {**ONE_RANK, **REWARD})
    (tmp_path / "rules.py").write_text(RULE)
    (tmp_path / "weights.py").write_text(WEIGHTS)
    return Folder(tmp_path, manifest)


def adopted(status: RLHFRunStatus) -> set[str]:
    return {name for name, stage in stages_of(status).items() if stage.adopted}


def test_an_edited_rule_scores_again_what_it_scored_and_nothing_else_is_done_again(folder: Folder) -> None:
    first = folder.run()
    assert first.phase is Phase.SUCCEEDED
    assert {path for path in first.resolved if "rule" in path} == {"reward.rule"}
    assert adopted(first) == set()
    made = artifacts_of(first)
    (folder.path / "weights.py").write_text("EXACT = -10.0\n")
    edited = folder.run()
    assert edited.resolved["reward.rule"] != first.resolved["reward.rule"]
    assert adopted(edited) == {"sft-0", "sample-1"}
    assert set(artifacts_of(edited)) == set(made)
    (folder.path / "weights.py").write_text(WEIGHTS)
    back = folder.run()
    assert artifacts_of(back) == made, "what the former code scored is still there, and found by it"
    assert adopted(back) == set(made)
