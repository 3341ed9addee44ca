"""Models from a folder: what would fail in silence fails aloud."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf_trainer.models.heads import LanguageHead, RewardHead
from rlhf_trainer.models.loading import load_causal_lm, load_reward_model, new_reward_model
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.tiny_models import save_tiny_llama


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "policy")


def test_defect_a_language_model_is_no_reward_model(policy: Path) -> None:
    """Loaded through the wrong class its head would be random, without a word."""
    with pytest.raises(ConfigurationProblem, match=r"lacks weights .*score\.weight.*random"):
        load_reward_model(policy, torch.float32)


def test_defect_a_checkpoint_with_missing_weights_is_refused(policy: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(policy, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigurationProblem, match=r"lacks weights .*layers\.1\.mlp\.up_proj"):
        load_causal_lm(broken, torch.float32)


def test_a_reward_model_with_two_labels_is_refused(reward: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(reward, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["score.weight"] = torch.cat([weights["score.weight"]] * 2)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigurationProblem):
        load_reward_model(broken, torch.float32)


def test_pickled_or_truncated_weights_are_not_read(policy: Path, tmp_path: Path) -> None:
    pickled = shutil.copytree(policy, tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(ConfigurationProblem, match="Only safetensors"):
        load_causal_lm(pickled, torch.float32)
    cut = shutil.copytree(policy, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(ConfigurationProblem):
        load_causal_lm(cut, torch.float32)


def test_a_model_that_changes_its_logits_behind_the_head_is_refused(policy: Path, tmp_path: Path) -> None:
    capped = shutil.copytree(policy, tmp_path / "capped")
    config = json.loads((capped / "config.json").read_text())
    (capped / "config.json").write_text(json.dumps(config | {"final_logit_softcapping": 30.0}))
    with pytest.raises(ConfigurationProblem, match="final_logit_softcapping"):
        load_causal_lm(capped, torch.float32)


def test_a_new_head_is_small_and_of_its_seed(policy: Path) -> None:
    first, same, other = (new_reward_model(policy, torch.float32, seed) for seed in (0, 0, 1))
    assert torch.equal(first.score.weight, same.score.weight)
    assert not torch.equal(first.score.weight, other.score.weight)
    assert float(first.score.weight.detach().std()) == pytest.approx(1 / 33, rel=0.5)


def test_heads_answer_what_they_always_did(policy: Path) -> None:
    model = load_causal_lm(policy, torch.float32)
    assert isinstance(model.lm_head, LanguageHead)
    ids = torch.tensor([[5, 6, 7]])
    from support.tiny_models import load

    torch.testing.assert_close(model(input_ids=ids).logits, load(policy)(input_ids=ids).logits)


def test_a_reward_head_computes_in_fp32_whatever_the_trunk() -> None:
    head = RewardHead(64, 1, bias=False, dtype=torch.bfloat16)
    states = torch.randn(100, 64).to(torch.bfloat16)
    scores = head(states)
    assert scores.dtype is torch.float32
    assert len(set(scores.flatten().tolist())) > len(set(scores.to(torch.bfloat16).flatten().tolist()))
