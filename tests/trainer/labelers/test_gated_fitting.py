"""Heads and gate of a multi-objective reward model, against the formulas written down plainly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rlhf_trainer.labelers.gated.fitting import PENALTIES, GateInputs, GateTraining, decorrelated, fit_heads, train_gate
from rlhf_trainer.labelers.gated.format import REGRESSION, SCALE, TRANSFORM, GatedShape, gate_layer
from rlhf_trainer.labelers.gated.model import GatedHeads
from rlhf_trainer.runtime.errors import ConfigurationProblem

SHAPE = GatedShape(hidden_size=6, objectives=3, temperature=10.0, hidden_dim=8, n_hidden=2)
NAMES = ["helpfulness", "verbosity", "safety"]


def rated(rows: int = 240, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States, ratings of which about half are missing, and which rows are kept for choosing."""
    drawn = torch.Generator().manual_seed(seed)
    states = torch.randn(rows, 6, generator=drawn)
    ratings = states @ torch.randn(6, 3, generator=drawn) + 0.1 * torch.randn(rows, 3, generator=drawn)
    ratings[torch.rand(rows, 3, generator=drawn) < 0.5] = math.nan
    return states, ratings, torch.arange(rows) % 5 == 0


def test_each_head_is_the_normal_equations_over_the_rows_that_have_its_rating() -> None:
    states, ratings, choosing = rated()
    alphas = [1e-4, 1.0, 100.0]
    found = fit_heads(states, ratings, alphas, choosing, NAMES)
    for index in range(3):
        rows = [row for row in range(len(states)) if not math.isnan(ratings[row, index])]
        fitted, kept = [row for row in rows if not choosing[row]], [row for row in rows if choosing[row]]
        tried = {}
        for alpha in alphas:
            x, y = states[fitted].double().numpy(), ratings[fitted, index].double().numpy()
            weight = np.linalg.solve(x.T @ x + alpha * np.eye(6), x.T @ y)
            tried[alpha] = (((states[kept].double().numpy() @ weight - ratings[kept, index].double().numpy()) ** 2).mean(), weight)
        best = min(tried, key=lambda alpha: tried[alpha][0])
        assert found.alphas[index] == best
        assert found.errors[index] == pytest.approx(tried[best][0], rel=1e-9)
        assert found.weight[index].numpy() == pytest.approx(tried[best][1], abs=1e-10)


def test_rows_without_a_rating_change_nothing_of_its_head() -> None:
    states, ratings, choosing = rated()
    whole = fit_heads(states, ratings, [1.0], choosing, NAMES)
    has = ~ratings[:, 0].isnan()
    alone = fit_heads(states[has], ratings[has][:, :1], [1.0], choosing[has], NAMES[:1])
    assert torch.allclose(whole.weight[0], alone.weight[0], atol=1e-12)


def test_more_states_than_rows_have_a_head_that_the_ridge_decides() -> None:
    drawn = torch.Generator().manual_seed(1)
    states, ratings = torch.randn(10, 40, generator=drawn), torch.randn(10, 1, generator=drawn)
    choosing = torch.arange(10) % 5 == 0
    found = fit_heads(states, ratings, [0.1], choosing, ["r"])
    x, y = states[~choosing].double(), ratings[~choosing, 0].double()
    assert torch.allclose(found.weight[0], torch.linalg.solve(x.T @ x + 0.1 * torch.eye(40).double(), x.T @ y), atol=1e-8)


def test_a_rating_that_no_row_has_is_named() -> None:
    states, ratings, choosing = rated()
    ratings[:, 2] = math.nan
    with pytest.raises(ConfigurationProblem, match="The rating safety is of 0 rows to fit its head to"):
        fit_heads(states, ratings, [1.0], choosing, NAMES)


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """By its definition: Pearson's correlation of ranks, equal values having the mean of theirs."""

    def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([((values < value).sum() + (values <= value).sum() + 1) / 2 for value in values], dtype=np.float64)

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def test_the_least_penalty_that_suffices_takes_verbosity_out() -> None:
    drawn = np.random.default_rng(0)
    verbose = drawn.normal(size=2000).round(1)
    rewards = np.stack([0.4 * verbose + drawn.normal(size=2000), verbose, -verbose + drawn.normal(size=2000), 5 * verbose], axis=1)
    transform = decorrelated(rewards, 1, 0.03)
    left = rewards @ transform
    expected = next(p for p in PENALTIES if spearman(rewards[:, 0] - p * verbose, verbose) <= 0.03)
    assert transform[1].tolist() == [-expected, 0.0, 0.0, -1.0], "of verbosity itself nothing is left"
    assert spearman(left[:, 0], verbose) <= 0.03
    assert (np.delete(transform, 1, axis=0) == np.delete(np.eye(4), 1, axis=0)).all()
    assert (decorrelated(np.zeros((5, 2)), 1, 0.03) == np.array([[1.0, 0.0], [0.0, 0.0]])).all()


def preferences(pairs: int = 600) -> GateInputs:
    """The first coordinate of a prompt says which of two rewards decides."""
    drawn = torch.Generator().manual_seed(2)
    prompts = torch.randn(pairs, 6, generator=drawn) * 3
    chosen, rejected = torch.randn(pairs, 3, generator=drawn), torch.randn(pairs, 3, generator=drawn)
    column = (prompts[:, 0] > 0).long()[:, None]
    better = chosen.gather(1, column) > rejected.gather(1, column)
    return GateInputs(prompts, torch.where(better, chosen, rejected), torch.where(better, rejected, chosen))


def test_the_gate_is_trained_as_a_plain_loop_trains_it() -> None:
    inputs, training = preferences(), GateTraining(steps=20, batch=32)
    found = train_gate(inputs, SHAPE, training, seed=7)
    drawn = torch.Generator().manual_seed(7)
    layers = [torch.nn.Linear(6, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)]
    with torch.no_grad():
        for part in ("weight", "bias"):
            for layer in layers:
                tensor, bound = getattr(layer, part), layer.in_features**-0.5
                tensor.copy_(torch.rand(tensor.shape, generator=drawn) * 2 * bound - bound)
    scale = torch.nn.Parameter(torch.ones(1))
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    optimizer = torch.optim.AdamW([*parameters, scale], lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for _ in range(20):
        places = torch.randint(600, (32,), generator=drawn)
        hidden = layers[1](layers[0](inputs.prompts[places]).relu()).relu()
        gates = torch.softmax(layers[2](hidden) / 10.0, dim=-1) * scale
        difference = (gates * inputs.chosen[places]).sum(-1) - (gates * inputs.rejected[places]).sum(-1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(difference, torch.ones(32))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for number, layer in enumerate(layers):
        assert torch.allclose(found[gate_layer(number, "weight")], layer.weight, atol=1e-5)
        assert torch.allclose(found[gate_layer(number, "bias")], layer.bias, atol=1e-5)
    assert torch.allclose(found[SCALE], scale, atol=1e-5)


def test_the_gate_learns_which_reward_a_prompt_asks_for_and_scores_by_it() -> None:
    """RLHFlow/RLHF-Reward-Modeling#54: a softmax over the two responses gives every reward one half, whatever is asked."""
    inputs = preferences()
    gate = train_gate(inputs, SHAPE, GateTraining(steps=400, batch=128, learning_rate=1e-2), seed=0)
    heads = GatedHeads(SHAPE, gate | {REGRESSION: torch.zeros(3, 6), TRANSFORM: torch.eye(3)})
    weights = heads.gating(inputs.prompts)
    assert torch.allclose(weights.sum(-1), gate[SCALE].expand(600), atol=1e-5)
    for asked, column in ((inputs.prompts[:, 0] > 1, 1), (inputs.prompts[:, 0] < -1, 0)):
        assert (weights[asked].argmax(-1) == column).float().mean() > 0.9
    better = (weights * (inputs.chosen - inputs.rejected)).sum(-1) > 0
    assert better.float().mean() > 0.9


def test_the_same_seed_gives_the_same_gate() -> None:
    one, same, other = (train_gate(preferences(), SHAPE, GateTraining(steps=5, batch=8), seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one[gate_layer(0, "weight")], other[gate_layer(0, "weight")])
