"""A multi-objective reward model is looked at before anything runs: config.json, headers of its weights, what its gate reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf_api.resource.storage import Storage
from rlhf_trainer.labelers.bradley_terry import BradleyTerryLabeler
from rlhf_trainer.preflight.lineage import independent_judge
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.preflights import knowing, problems, run, uri
from support.stages import spec_of_world
from support.tiny_models import save_gated_model

TRUNK, HEADS = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gated_model(tmp_path_factory.mktemp("gated"))


def judged_by(folder: Path) -> dict[str, Any]:
    judge = {"type": "MultiObjective", "multiObjective": {"model": uri(folder)}}
    return {"evaluate": {"judge": judge, "against": ["Initial", "Previous"]}}


def configured(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def reshape(folder: Path, change: Callable[[Weights], object], file: str = HEADS) -> None:
    weights = load_file(folder / file)
    change(weights)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / file, metadata={"format": "pt"})


def test_it_is_resolved_and_nothing_is_wrong_with_it(world: Path, gated: Path, storage: Storage, tmp_path: Path) -> None:
    found = run(world, storage, tmp_path, **judged_by(gated))
    assert "evaluate.judge.multiObjective.model" in found.resolved
    found = run(world, storage, tmp_path, reward={"type": "MultiObjective", "multiObjective": {"model": uri(gated)}})
    assert "reward.multiObjective.model" in found.resolved
    assert not any("BOS" in warning or "pads" in warning for warning in found.warnings)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "another_class": (
        lambda folder: configured(folder, architectures=["LlamaForSequenceClassification"]),
        "is LlamaForSequenceClassification; type MultiObjective is for models published as LlamaForRewardModelWithGating",
    ),
    "quantiles": (
        lambda folder: configured(folder, architectures=["LlamaForRewardModelWithGating31"]),
        "is LlamaForRewardModelWithGating31; type MultiObjective is for",
    ),
    "no_class": (lambda folder: configured(folder, architectures=None), "is of no known architecture; type MultiObjective"),
    "another_body": (lambda folder: configured(folder, model_type="gemma2"), "has a body of model_type 'gemma2'"),
    "other_objectives": (
        lambda folder: configured(folder, num_objectives=10),
        r"gating.layers.3.bias is [19] in its files, and [10] by its config.json",
    ),
    "no_objectives": (lambda folder: configured(folder, num_objectives=0), "has num_objectives 0 in its config.json"),
    "not_counted": (lambda folder: configured(folder, gating_n_hidden="3"), "has gating_n_hidden '3' in its config.json"),
    "no_end_of_layers": (lambda folder: configured(folder, gating_n_hidden=10**12), "expected a whole number from 0 to 1000000"),
    "no_temperature": (lambda folder: configured(folder, gating_temperature=0), "has gating_temperature 0 in its config.json"),
    "fewer_layers_than_stored": (
        lambda folder: configured(folder, gating_n_hidden=2),
        "gating.layers.2.bias is [24] in its files, and [19] by its config.json",
    ),
    "more_layers_than_stored": (lambda folder: configured(folder, gating_n_hidden=4), "no weights for gating.layers.4.bias"),
    "a_head_less": (
        lambda folder: reshape(folder, lambda heads: heads.update({"regression_layer.weight": torch.zeros(18, 32)})),
        "regression_layer.weight is [18, 32] in its files, and [19, 32] by its config.json",
    ),
    "no_transform": (
        lambda folder: reshape(folder, lambda heads: heads.pop("reward_transform_matrix")),
        "no weights for reward_transform_matrix: they would be random",
    ),
    "no_regression": (
        lambda folder: reshape(folder, lambda heads: heads.pop("regression_layer.weight")),
        "no weights for regression_layer.weight: they would be random",
    ),
    "a_bias": (
        lambda folder: reshape(folder, lambda heads: heads.update({"regression_layer.bias": torch.zeros(19)})),
        "has weights that LlamaForRewardModelWithGating does not know by its config.json (regression_layer.bias)",
    ),
    "fewer_trunk_layers": (
        lambda folder: configured(folder, num_hidden_layers=1),
        "does not know by its config.json (model.layers.1.",
    ),
    "more_trunk_layers": (lambda folder: configured(folder, num_hidden_layers=3), "no weights for model.layers.2."),
    "another_width": (lambda folder: configured(folder, hidden_size=16), "model.embed_tokens.weight is [310, 32]"),
    "quantised": (lambda folder: configured(folder, quantization_config={"quant_method": "awq"}), "is quantised (awq)"),
    "chatml": (
        lambda folder: [
            file.write_text(file.read_text().replace("<|start_header_id|>", "<|im_start|>"))
            for file in (folder / "tokenizer.json", folder / "tokenizer_config.json", folder / "chat_template.jinja")
        ],
        "no tokens of their own for <|eot_id|>, <|start_header_id|>, <|end_header_id|>",
    ),
    "another_template": (
        lambda folder: (folder / "chat_template.jinja").write_text(
            "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}\n\n{{ m.content }}<|eot_id|>{% endfor %}"
        ),
        "to score an answer: The header of an answer, '<|eot_id|><|start_header_id|>assistant<|end_header_id|>\\n\\n'",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_fit_is_refused_in_words(world: Path, gated: Path, storage: Storage, tmp_path: Path, kind: str) -> None:
    copy = shutil.copytree(gated, tmp_path / "copy")
    damage, said = WRONG[kind]
    damage(copy)
    told = problems(world, storage, tmp_path / "scratch", **judged_by(copy))
    assert said in told
    assert f"file://{copy}" in told


def test_as_another_type_of_labeler_it_is_refused_with_the_right_one(
    world: Path, gated: Path, storage: Storage, tmp_path: Path
) -> None:
    """Served as any other reward model it answers around -2, and users ask why (OpenRLHF/OpenRLHF#486, RLHFlow/Online-RLHF#23)."""
    judge = {"type": "BradleyTerry", "bradleyTerry": {"model": uri(gated)}}
    told = problems(world, storage, tmp_path, evaluate={"judge": judge})
    assert "is LlamaForRewardModelWithGating; a …ForSequenceClassification is needed here" in told
    assert "As reward or judge it is of type MultiObjective." in told
    with pytest.raises(ConfigurationProblem, match=r"score\.weight"):
        BradleyTerryLabeler.load(gated)


def test_no_weights_are_read(world: Path, gated: Path, storage: Storage, tmp_path: Path) -> None:
    """Of a far model there are headers alone, and a hole behind."""
    copy = shutil.copytree(gated, tmp_path / "copy")
    for name in (TRUNK, HEADS):
        whole = (copy / name).read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        (copy / name).write_bytes(whole[:header] + bytes(len(whole) - header))
    assert "evaluate.judge.multiObjective.model" in run(world, storage, tmp_path / "scratch", **judged_by(copy)).resolved


def test_a_prompt_in_which_the_gate_finds_no_header_is_named(world: Path, gated: Path, storage: Storage, tmp_path: Path) -> None:
    """A template may write some conversations otherwise."""
    copy = shutil.copytree(gated, tmp_path / "copy")
    file = copy / "chat_template.jinja"
    file.write_text(
        "{% if messages[0].role == 'system' %}{% for m in messages %}{{ m.role + ': ' + m.content }}<|eot_id|>{% endfor %}"
        "{% else %}" + file.read_text() + "{% endif %}"
    )
    assert run(world, storage, tmp_path / "scratch", **judged_by(copy)).resolved
    other = knowing(world, tmp_path / "world", r"<\|system\|>")
    rows = pq.read_table(other / "prompts.parquet").to_pylist()
    rows[5]["messages"] = [{"role": "system", "content": "lion moon"}, *rows[5]["messages"]]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = judged_by(copy) | {"prompts": {"source": uri(prompts), "perIteration": 24, "validation": {"size": 12}}}
    told = problems(other, storage, tmp_path / "other", **changed)
    assert f"file://{prompts}: row 6, as file://{copy} reads it to score an answer: The header of an answer" in told


def test_padding_with_the_end_of_a_turn_is_warned_of_and_changes_nothing(
    world: Path, gated: Path, storage: Storage, tmp_path: Path
) -> None:
    copy = shutil.copytree(gated, tmp_path / "copy")
    file = copy / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": "<|eot_id|>"}))
    found = run(world, storage, tmp_path / "scratch", **judged_by(copy))
    assert any("pads with its EOS token" in warning for warning in found.warnings)


def test_a_multi_objective_judge_that_descends_from_the_training_reward_is_refused(
    world: Path, gated: Path, reward: Path, storage: Storage, tmp_path: Path
) -> None:
    """ArmoRM is made from FsfairX-LLaMA3-RM-v0.1, the paper's own reward."""
    copy = shutil.copytree(gated, tmp_path / "copy")
    (copy / "README.md").write_text(f"---\nbase_model: file://{reward}\n---\n")
    spec = spec_of_world(world, reward={"type": "BradleyTerry", "bradleyTerry": {"model": uri(reward)}}, **judged_by(copy))
    with pytest.raises(ConfigurationProblem, match="descends from the training reward"):
        independent_judge(spec, tmp_path, storage, [])
