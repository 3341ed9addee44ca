"""Bad input: one clear message with every problem, before anything is computed.

The stage preflight runs here in this process, on a store in a folder; test_bad_input_cli.py has the way through rlhfctl.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.stage import Execution, PreflightWork, RunRef, StageConfig, StageResult
from rlhf_api.words import StageExit, StageName
from rlhf_store import open_store
from rlhf_trainer.quickstart import task
from rlhf_trainer.quickstart import world as quickstart_world
from rlhf_trainer.runtime.context import StageContext
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.stages import preflight
from support.mini import read_manifest, write_manifest

TINY = quickstart_world.Size(
    iterations=1, prompts_per_iteration=8, validation=4, test=0, demonstrations=4, preferences=4, sft_steps=1, layers=1
)


class World:
    """A world of its own for each test, to be spoilt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "world"
        self.manifest = quickstart_world.make_world(self.folder, 0, TINY, f"file://{folder / 'store'}")
        self._scratch = folder / "scratch"
        self._scratch.mkdir()

    @property
    def prompts(self) -> Path:
        return self.folder / "prompts.parquet"

    def change(self, changes: dict[str, Any]) -> None:
        write_manifest(self.manifest, read_manifest(self.manifest), changes)

    def preflight(self) -> StageResult:
        spec = RLHFRunSpec.model_validate(read_manifest(self.manifest)["spec"])
        config = StageConfig(
            run=RunRef(namespace="default", name="quickstart", uid="1"),
            seed=0,
            fingerprint="0" * 64,
            storage=spec.storage,
            execution=Execution(),
            work=PreflightWork(spec=spec.to_wire()),
        )
        return preflight.run(StageContext(config, open_store(spec.storage), self._scratch))

    def refusal(self) -> str:
        with pytest.raises(ConfigurationProblem) as refused:
            self.preflight()
        assert refused.value.exit == StageExit.CONFIGURATION
        return str(refused.value)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def write_rows(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def test_a_good_world_has_no_problem(world: World) -> None:
    found = world.preflight()
    assert found.stage is StageName.PREFLIGHT
    assert found.counts["prompts/1"] == 8


def _cut(world: World) -> None:
    world.prompts.write_bytes(world.prompts.read_bytes()[:-20])


def _remove(world: World) -> None:
    world.prompts.unlink()


def _empty(world: World) -> None:
    write_rows(world.prompts, messages=pa.array([], type=pq.read_schema(world.prompts).field("messages").type))


def _no_file(world: World) -> None:
    world.prompts.write_bytes(b"")


def _other_column(world: World) -> None:
    write_rows(world.prompts, line=["sort: lion apple"] * 12)


def _number(world: World) -> None:
    write_rows(world.prompts, messages=list(range(12)))


def _no_user(world: World) -> None:
    turns = [{"role": "user", "content": "sort: lion apple"}, {"role": "assistant", "content": "apple lion"}]
    write_rows(world.prompts, messages=[turns] * 12)


def _no_role(world: World) -> None:
    write_rows(world.prompts, messages=[[{"text": "sort: lion apple"}]] * 12)


def _blank(world: World) -> None:
    write_rows(world.prompts, messages=["sort: lion apple", "  "])


def _not_json(world: World) -> None:
    lines = world.prompts.with_suffix(".jsonl")
    lines.write_text('{"messages": "sort: lion apple"}\n{"messages": \n')
    world.change({"spec.prompts.source.uri": f"file://{lines}"})


def _too_few(world: World) -> None:
    write_rows(world.prompts, messages=["sort: lion apple"] * 50)


def _long(number: int) -> str:
    return f"sort: {' '.join(random.Random(number).choices(task.WORDS, k=80))}"


def _too_long(world: World) -> None:
    write_rows(world.prompts, messages=[_long(number) for number in range(50)])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_remove, "prompts.parquet does not exist or is empty. Mount the volume, or correct the path"),
        (_cut, "prompts.parquet is no readable Parquet file"),
        (_no_file, "prompts.parquet is no readable Parquet file"),
        (_empty, "prompts.parquet (split train) has no rows"),
        (_other_column, "has no column 'messages' (it has line). Set prompts.source.column"),
        (_number, "row 1: column messages: 0 is no list"),
        (_no_user, "row 1: it ends with a turn of the assistant, and not of the user"),
        (_no_role, "has the role None; write under roles"),
        (_blank, "row 2: column messages: the text is empty"),
        (_not_json, "line 2 of prompts.jsonl is no JSON"),
        (_too_few, "Nothing is left of prompts.source for iteration 1"),
        (_too_long, "prompts of validation are longer than train.maxPromptLength, 16 tokens"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused_and_the_place_is_named(
    world: World, spoil: Callable[[World], None], words: str
) -> None:
    spoil(world)
    said = world.refusal()
    assert said.startswith("preflight found 1 problem:")
    assert words in said


def test_some_prompts_that_are_too_long_are_counted_and_no_problem(world: World) -> None:
    rows = pq.read_table(world.prompts).column("messages").to_pylist()
    long = [[{"role": "user", "content": _long(number)}] for number in range(4)]
    write_rows(world.prompts, messages=pa.array(rows + long, type=pq.read_schema(world.prompts).field("messages").type))
    world.change({"spec.prompts.perIteration": 12})
    found = world.preflight()
    assert any("longer than train.maxPromptLength" in warning for warning in found.warnings)


def test_a_model_without_chat_template_is_refused_and_what_to_set_is_said(world: World) -> None:
    (world.folder / "model" / "chat_template.jinja").unlink()
    assert "has no chat template (it is a base model). Set policy.chatTemplate" in world.refusal()


def test_a_model_without_weights_is_refused(world: World) -> None:
    for weights in (world.folder / "model").glob("*.safetensors"):
        weights.unlink()
    assert "has no safetensors weights" in world.refusal()


def test_a_folder_that_is_no_model_is_refused(world: World) -> None:
    (world.folder / "model" / "config.json").unlink()
    assert "is no model" in world.refusal()


def _reward_of(world: World, folder: Path) -> None:
    world.change({"spec.reward": {"type": "BradleyTerry", "bradleyTerry": {"model": {"uri": f"file://{folder}"}}}})


def test_a_language_model_for_a_reward_model_is_refused(world: World) -> None:
    _reward_of(world, world.folder / "model")
    assert (
        "is LlamaForCausalLM; a …ForSequenceClassification is needed here, for the missing head would be random" in world.refusal()
    )


def test_a_reward_model_whose_weights_have_no_head_is_refused(world: World) -> None:
    """Its configuration names the right class, and transformers would load it with a random head and a warning."""
    folder = world.folder / "model"
    config = json.loads((folder / "config.json").read_text())
    reward = world.folder / "reward"
    reward.mkdir()
    for file in folder.iterdir():
        (reward / file.name).write_bytes(file.read_bytes())
    config["architectures"] = ["LlamaForSequenceClassification"]
    (reward / "config.json").write_text(json.dumps(config))
    _reward_of(world, reward)
    assert "score.weight" in world.refusal()


def test_every_problem_is_told_at_once(world: World) -> None:
    world.prompts.unlink()
    (world.folder / "model" / "chat_template.jinja").unlink()
    (world.folder / "demonstrations.parquet").unlink()
    world.change({"spec.evaluate.judge.rule.entryPoint": "no_such_module:grade"})
    said = world.refusal()
    for part in ("prompts.parquet", "no chat template", "demonstrations.parquet", "no_such_module:grade"):
        assert part in said
    assert not list((world.folder.parent / "store").rglob("*.json")), "nothing is left in the store"
