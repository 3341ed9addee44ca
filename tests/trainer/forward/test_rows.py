"""Packed rows compute what one padding-free forward for each prompt and completion would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_api.resource.training import Loss
from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.logps import completion_sums, score_examples, token_logps
from rlhf_trainer.forward.rows import Packing, build_batch, micro_batches, pack
from rlhf_trainer.models.heads import use_language_head
from rlhf_trainer.training.objectives import PreferenceObjective, SupervisedObjective
from support.plain_torch import completion_logp, dpo_loss, named
from support.tiny_models import load, random_pairs, save_tiny_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def model(folder: Path) -> Any:
    return load(folder)


@pytest.fixture
def packed(folder: Path) -> Any:
    model = load(folder)
    use_language_head(model)
    return model


@pytest.mark.parametrize("packing", [Packing(1, 1), Packing(40, 80), Packing(64, 10_000), Packing(10_000, 10_000)])
def test_a_packed_row_gives_the_log_probs_of_unpacked_forwards(model: Any, packed: Any, packing: Packing) -> None:
    examples = random_pairs(11)
    found: dict[int, list[float]] = {}
    for batch in score_examples(packed, examples, packing):
        for number, example in enumerate(batch.examples):
            found[id(example)] = batch.logps[2 * number : 2 * number + 2]
    with torch.no_grad():
        expected = [[float(completion_logp(model, e.prompt, c)) for c in e.completions] for e in examples]
    assert [found[id(example)] for example in examples] == [pytest.approx(pair, abs=1e-5, rel=1e-6) for pair in expected]


def test_a_packed_batch_gives_the_gradients_of_unpacked_forwards(model: Any, packed: Any) -> None:
    examples = random_pairs(7)
    for rows in micro_batches(examples, Packing(40, 80)):
        PreferenceObjective(Loss())(packed, build_batch(rows)).loss.backward()
    torch.stack([dpo_loss(model, example) for example in examples]).sum().backward()
    for (name, ours), (_, theirs) in zip(packed.named_parameters(), model.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4, msg=named(name))


def test_the_loss_counts_only_what_is_marked(model: Any, packed: Any) -> None:
    ids = [5, 6, 7, 8, 9, 10, 11]
    counted = [False, False, True, True, False, False, True]
    batch = build_batch([[Example([], [ids], [counted])]])
    loss = float(SupervisedObjective()(packed, batch).loss.detach())
    logps = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    expected = -sum(float(logps[i - 1, ids[i]].detach()) for i in range(len(ids)) if counted[i])
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_token_sees_neither_another_completion_nor_another_prompt(packed: Any) -> None:
    first, second = random_pairs(2)
    alone = token_logps(packed, build_batch([[first]]))
    changed = Example(first.prompt, [first.completions[0], [4] * 9])
    together = token_logps(packed, build_batch([[second, changed]]))
    chosen = len(first.completions[0])
    count = sum(len(c) for c in second.completions)
    torch.testing.assert_close(together[count : count + chosen], alone[:chosen], atol=1e-5, rtol=1e-5)


def test_an_idle_rank_takes_part_with_a_zero_gradient(packed: Any) -> None:
    summed = PreferenceObjective(Loss())(packed, build_batch([]))
    summed.loss.backward()
    assert float(summed.loss.detach()) == 0.0
    gradients = [parameter.grad for parameter in packed.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_packing_keeps_every_example_once_and_within_its_budget() -> None:
    examples = random_pairs(200)
    packing = Packing(48, 150)
    batches = micro_batches(examples, packing)
    assert sorted(id(e) for rows in batches for row in rows for e in row) == sorted(id(e) for e in examples)
    for rows in batches:
        lengths = [sum(e.tokens for e in row) for row in rows]
        assert all(length <= 48 or len(row) == 1 for length, row in zip(lengths, rows, strict=True))
        assert len(rows) == 1 or len(rows) * max(lengths) <= 150


def test_packing_fills_rows() -> None:
    rows = pack(random_pairs(300), 96)
    assert sum(e.tokens for row in rows for e in row) / (96 * len(rows)) > 0.9


def test_a_chunk_of_logits_changes_nothing(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = build_batch([random_pairs(5)])
    whole = completion_sums(token_logps(packed, batch), batch)
    monkeypatch.setattr("rlhf_trainer.models.heads.CHUNK", 3)
    torch.testing.assert_close(completion_sums(token_logps(packed, batch), batch), whole)


def test_positions_restart_behind_the_prompt_in_each_completion() -> None:
    batch = build_batch([[Example([7, 8, 9], [[10, 11], [12]])]])
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 3]]
    assert batch.predictors.tolist() == [2, 3, 2]
    assert batch.ends.tolist() == [4, 5]


def test_tokens_that_nothing_predicts_have_no_weight() -> None:
    assert Example([], [[5, 6, 7]], [[True, True, True]]).counted_tokens == 2
    assert Example([4], [[5, 6, 7]], None).counted_tokens == 3
