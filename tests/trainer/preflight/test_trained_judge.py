"""A judge that the run trains is looked at as the training reward is, and must not be it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.storage import Storage
from rlhf_api.words import ArtifactKind, StageName
from rlhf_trainer.preflight.lineage import independent_judge
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.preflights import problems, run, uri
from support.stages import spec_of_world

PATH = "evaluate.judge.bradleyTerry.train"


def trained(*files: Path, **training: Any) -> dict[str, Any]:
    data = [{"name": f"pairs-{number}", **uri(file)} for number, file in enumerate(files)]
    return {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": data, "maxLength": 64, **training}}}


@pytest.fixture
def pairs(world: Path, tmp_path: Path) -> Path:
    """Of the judge alone."""
    file = tmp_path / "pairs.parquet"
    pq.write_table(pq.read_table(world / "preferences.parquet").slice(0, 32), file)
    return file


def test_what_it_is_trained_on_is_resolved_and_prepared(world: Path, storage: Storage, tmp_path: Path, pairs: Path) -> None:
    judge = trained(pairs, base=uri(world / "model"))
    result = run(world, storage, tmp_path, evaluate={"judge": judge})
    assert {f"{PATH}.base", f"{PATH}.data/pairs-0", "reward.bradleyTerry.train.data/preferences"} <= result.resolved.keys()
    manifests = (tmp_path / "store" / ArtifactKind.TOKENS).glob("*/manifest.json")
    made = {found["stage"]: found for found in (json.loads(file.read_text()) for file in manifests)}
    assert set(made) == {StageName.SFT, StageName.REWARD, StageName.JUDGE}
    assert made[StageName.JUDGE]["rows"] <= 32 < made[StageName.REWARD]["rows"]


def test_its_problems_are_told_with_its_own_fields(world: Path, storage: Storage, tmp_path: Path, pairs: Path) -> None:
    """Beside each other: nothing of it hides behind the reward's."""
    judge = trained(
        tmp_path / "gone.parquet", base=uri(tmp_path / "no-model"), heldOut={"data": {"name": "bench", **uri(tmp_path)}}
    )
    told = problems(world, storage, tmp_path, evaluate={"judge": judge})
    assert "gone.parquet does not exist" in told
    assert "no-model is no model" in told
    held = {"fraction": 1e-9}
    assert f"{PATH}.heldOut: none of" in problems(world, storage, tmp_path, evaluate={"judge": trained(pairs, heldOut=held)})


def test_preferences_of_the_judge_that_answer_held_out_prompts_are_not_trained_on(
    world: Path, storage: Storage, tmp_path: Path, pairs: Path
) -> None:
    """An evaluation is of prompts that its judge has not seen answered."""
    chosen = pq.read_table(pairs).column("chosen").to_pylist()
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps({"prompt": turns[0]["content"]}) + "\n" for turns in chosen[:4]))
    prompts = {
        "source": uri(world / "prompts.parquet"),
        "perIteration": 24,
        "validation": {"source": {**uri(asked), "column": "prompt"}},
        "maxNearHeldOut": 1.0,
    }
    run(world, storage, tmp_path, prompts=prompts, evaluate={"judge": trained(pairs)})
    manifests = (tmp_path / "store" / ArtifactKind.TOKENS).glob("*/manifest.json")
    [judge] = [found for found in (json.loads(file.read_text()) for file in manifests) if found["stage"] == StageName.JUDGE]
    assert judge["counts"]["heldOut"] >= 4


def model(folder: Path, world: Path, card: str) -> dict[str, str]:
    shutil.copytree(world / "model", folder)
    (folder / "README.md").write_text(card)
    return uri(folder)


def warnings_of(world: Path, tmp_path: Path, storage: Storage, reward: dict[str, Any], judge: dict[str, Any]) -> list[str]:
    warnings: list[str] = []
    independent_judge(spec_of_world(world, reward=reward, evaluate={"judge": judge}), tmp_path / "scratch", storage, warnings)
    return warnings


def test_a_shared_base_and_shared_data_are_warned_of(world: Path, storage: Storage, tmp_path: Path) -> None:
    card = "---\nbase_model: example/backbone\n---\n"
    one, other = model(tmp_path / "one", world, card), model(tmp_path / "other", world, "")
    a, b = Path("/data/a.parquet"), Path("/data/b.parquet")
    [shared] = warnings_of(world, tmp_path, storage, trained(a, base=one), trained(b, base=one))
    assert "share the backbone example/backbone, file://" in shared
    [data] = warnings_of(world, tmp_path, storage, trained(a, base=one), trained(a, b, base=other))
    assert data == "Judge and training reward are trained on the same file:///data/a.parquet; their errors may agree."
    assert warnings_of(world, tmp_path, storage, trained(a, base=one), trained(b, base=other)) == []
    [pi_0] = warnings_of(world, tmp_path, storage, trained(a), trained(b))
    assert f"share the backbone file://{world}/model" in pi_0


def test_a_judge_trained_from_what_descends_from_the_reward_is_refused(world: Path, storage: Storage, tmp_path: Path) -> None:
    reward = {"type": "BradleyTerry", "bradleyTerry": {"model": model(tmp_path / "reward", world, "")}}
    base = model(tmp_path / "base", world, f"---\nbase_model: file://{tmp_path}/reward\n---\n")
    judge = trained(Path("/data/a.parquet"), base=base)
    with pytest.raises(ConfigurationProblem, match=r"that the run trains from .*/base descends from the training reward"):
        warnings_of(world, tmp_path, storage, reward, judge)
    allowed = spec_of_world(world, reward=reward, evaluate={"judge": judge, "allowTrainingReward": True})
    independent_judge(allowed, tmp_path / "scratch", storage, [])


def test_a_reward_trained_from_the_judge_is_warned_of(world: Path, storage: Storage, tmp_path: Path) -> None:
    named = model(tmp_path / "judge", world, "---\nbase_model: example/backbone\n---\n")
    judge = {"type": "BradleyTerry", "bradleyTerry": {"model": named}}
    [shared] = warnings_of(world, tmp_path, storage, trained(Path("/data/a.parquet"), base=named), judge)
    assert named["uri"] in shared
