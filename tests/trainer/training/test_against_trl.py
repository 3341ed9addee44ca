"""TRL's DPOTrainer on the same model and the same pairs: the same losses, rewards and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_api.resource.training import Loss
from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.logps import score_examples
from rlhf_trainer.forward.rows import Packing, build_batch, micro_batches
from rlhf_trainer.models.heads import use_language_head
from rlhf_trainer.training.objectives import PreferenceObjective
from support.tiny_models import load, random_pairs, save_tiny_llama

pytestmark = pytest.mark.engine

BETA, SMOOTHING = 0.2, 0.1
#: Ours, TRL's name, and whether TRL sorts within the batch, so that its loss is the pair's only in a batch of one.
LOSSES = [
    (Loss(type="Sigmoid", beta=BETA, length_normalized=True), "sigmoid_norm", False),
    (Loss(type="SPPO", beta=BETA), "sppo_hard", False),
    (Loss(type="Sigmoid", beta=BETA), "sigmoid", False),
    (Loss(type="IPO", beta=BETA, average="Token"), "ipo", False),
    (Loss(type="Hinge", beta=BETA), "hinge", False),
    (Loss(type="Robust", beta=BETA, label_smoothing=SMOOTHING), "robust", False),
    # TRL's sigmoid has no label smoothing any more; its `aot` is cDPO on sorted log-ratios.
    (Loss(type="CDPO", beta=BETA, label_smoothing=SMOOTHING), "aot", True),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def pairs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """With the log-probs of another model for a reference."""
    reference = load(save_tiny_llama(tmp_path_factory.mktemp("models") / "reference", seed=1))
    use_language_head(reference)
    found = []
    for batch in score_examples(reference, random_pairs(6, reference=False), Packing(1, 1)):
        (example,) = batch.examples
        found.append(Example(example.prompt, example.completions, None, reference=tuple(batch.logps)))
    return found


@pytest.fixture(scope="module")
def trl(folder: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return trainer_of(folder, tokenizer, tmp_path_factory.mktemp("trl"))


def trainer_of(folder: Path, tokenizer: Any, scratch: Path, **options: Any) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(
        output_dir=str(scratch),
        beta=BETA,
        label_smoothing=SMOOTHING,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        **options,
    )
    rows = Dataset.from_dict({"prompt": ["sort : moon"], "chosen": ["moon"], "rejected": ["river"]})
    trainer = DPOTrainer(model=load(folder), args=arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.precompute_ref_logps = True
    return trainer


def inputs_of(pairs: list[Example]) -> dict[str, torch.Tensor]:
    """As TRL's collator pads them: all chosen, then all rejected."""
    sequences = [(e.prompt, e.completions[side]) for side in (0, 1) for e in pairs]
    longest = max(len(prompt) + len(completion) for prompt, completion in sequences)

    def padded(rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])

    return {
        "input_ids": padded([[*prompt, *completion] for prompt, completion in sequences]),
        "attention_mask": padded([[1] * (len(prompt) + len(completion)) for prompt, completion in sequences]),
        "completion_mask": padded([[0] * len(prompt) + [1] * len(completion) for prompt, completion in sequences]),
        "ref_chosen_logps": torch.tensor([e.reference[0] for e in pairs]),
        "ref_rejected_logps": torch.tensor([e.reference[1] for e in pairs]),
    }


def theirs(trl: Any, name: str, pairs: list[Example]) -> tuple[float, dict[str, float], dict[str, torch.Tensor]]:
    """Loss, metrics, gradients."""
    trl.loss_types, trl.loss_weights = [name], [1.0]
    trl._metrics["train"].clear()
    trl.model.train()
    trl.model.zero_grad()
    loss = trl._compute_loss(trl.model, inputs_of(pairs), False)
    loss.backward()
    metrics = {key: float(values[-1]) for key, values in trl._metrics["train"].items()}
    return float(loss.detach()), metrics, {n: p.grad.clone() for n, p in trl.model.named_parameters()}


@pytest.mark.parametrize(("loss", "name", "alone"), LOSSES, ids=[name for _, name, _ in LOSSES])
def test_losses_rewards_and_gradients_are_those_of_trl(
    trl: Any, folder: Path, pairs: list[Example], loss: Loss, name: str, alone: bool
) -> None:
    model = load(folder)
    use_language_head(model)
    batches = [[pair] for pair in pairs] if alone else [pairs]
    for batch in batches:
        expected, metrics, gradients = theirs(trl, name, batch)
        model.zero_grad()
        total, ours = 0.0, dict.fromkeys(PreferenceObjective.metric_names, 0.0)
        for rows in micro_batches(batch, Packing(40, 80)):
            summed = PreferenceObjective(loss)(model, build_batch(rows))
            (summed.loss / len(batch)).backward()
            total += float(summed.loss.detach())
            ours = {key: ours[key] + value for key, value in summed.metrics.items()}
        assert total / len(batch) == pytest.approx(expected, abs=1e-5, rel=1e-5)
        # Per token, TRL compares means and reports sums; ours reports what is compared.
        for key, value in ours.items() if not loss.length_normalized else ():
            assert value / len(batch) == pytest.approx(metrics[key], abs=1e-4), key
        for parameter_name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[parameter_name], atol=1e-5, rtol=1e-3)


def test_weights_of_pairs_are_those_of_trl(folder: Path, tokenizer: Any, pairs: list[Example], tmp_path: Path) -> None:
    trl = trainer_of(folder, tokenizer, tmp_path, use_weighting=True)
    expected, _, gradients = theirs(trl, "sigmoid", pairs)
    model = load(folder)
    use_language_head(model)
    total = 0.0
    for rows in micro_batches(pairs, Packing(40, 80)):
        summed = PreferenceObjective(Loss(type="Sigmoid", beta=BETA, weighting="WPO"))(model, build_batch(rows))
        (summed.loss / len(pairs)).backward()
        total += float(summed.loss.detach())
    assert total / len(pairs) == pytest.approx(expected, abs=1e-5, rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-3)
