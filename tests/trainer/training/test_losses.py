"""Losses as formulas: where they start, and what they are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlhf_api.resource.training import IpoAverage, Loss, LossType
from rlhf_trainer.training.losses import PairLogps, bradley_terry, policy_weight, preference_loss

BETA = 0.3


def logps(
    chosen: float, rejected: float, reference: tuple[float, float] = (0.0, 0.0), tokens: tuple[int, int] = (4, 8)
) -> PairLogps:
    figures = (chosen, rejected, *reference, *map(float, tokens))
    return PairLogps(*(torch.tensor([figure], dtype=torch.float64) for figure in figures))


def loss_of(spec: Loss, pair: PairLogps) -> float:
    return float(preference_loss(spec, pair).loss)


def log_sigmoid(u: float) -> float:
    return -math.log1p(math.exp(-u))


@pytest.mark.parametrize(
    ("loss", "start"),
    [
        (LossType.SIGMOID, math.log(2)),
        (LossType.CDPO, math.log(2)),
        (LossType.ROBUST, math.log(2)),
        (LossType.IPO, 1 / (4 * BETA**2)),
        (LossType.HINGE, 1.0),
    ],
)
def test_defect_a_loss_starts_where_it_must_while_policy_equals_reference(loss: LossType, start: float) -> None:
    same = logps(-12.0, -30.0, (-12.0, -30.0))
    assert loss_of(Loss(type=loss, beta=BETA), same) == pytest.approx(start, abs=1e-9)


def test_robust_is_not_cdpo_once_the_policy_moves() -> None:
    moved = logps(-10.0, -34.0, (-12.0, -30.0))
    cdpo, robust = (loss_of(Loss(type=kind, beta=BETA, label_smoothing=0.2), moved) for kind in (LossType.CDPO, LossType.ROBUST))
    u = BETA * 6.0
    assert cdpo == pytest.approx(-0.8 * log_sigmoid(u) - 0.2 * log_sigmoid(-u))
    assert robust == pytest.approx((-0.8 * log_sigmoid(u) + 0.2 * log_sigmoid(-u)) / 0.6)
    assert robust < cdpo


def test_robust_is_unbiased_under_label_flips() -> None:
    """E over flips with probability e of the robust loss is the clean sigmoid loss: its definition."""
    flip = 0.2
    spec = Loss(type=LossType.ROBUST, beta=BETA, label_smoothing=flip)
    right, wrong = loss_of(spec, logps(-10.0, -34.0)), loss_of(spec, logps(-34.0, -10.0))
    assert (1 - flip) * right + flip * wrong == pytest.approx(loss_of(Loss(beta=BETA), logps(-10.0, -34.0)))


def test_ipo_by_token_and_by_sum_are_two_losses() -> None:
    pair = logps(-10.0, -34.0, (-12.0, -30.0), tokens=(4, 8))
    by_token = loss_of(Loss(type=LossType.IPO, beta=BETA, average=IpoAverage.TOKEN), pair)
    by_sum = loss_of(Loss(type=LossType.IPO, beta=BETA, average=IpoAverage.SUM), pair)
    assert by_token == pytest.approx((2 / 4 + 4 / 8 - 1 / (2 * BETA)) ** 2)
    assert by_sum == pytest.approx((6 - 1 / (2 * BETA)) ** 2)
    assert loss_of(Loss(type=LossType.IPO, beta=BETA), pair) == by_token


def test_simpo_compares_means_and_needs_no_reference() -> None:
    pair = logps(-10.0, -34.0, (-99.0, -1.0), tokens=(4, 8))
    outcome = preference_loss(Loss(type=LossType.SIMPO, beta=2.0, gamma=0.5), pair)
    assert float(outcome.loss) == pytest.approx(-log_sigmoid(2.0 * (-10 / 4 + 34 / 8) - 0.5))
    assert float(outcome.chosen_reward - outcome.rejected_reward) == pytest.approx(2.0 * (-10 / 4 + 34 / 8))


def test_cpo_is_sigmoid_without_a_reference() -> None:
    pair = logps(-10.0, -34.0, (0.0, 0.0))
    assert loss_of(Loss(type=LossType.CPO, beta=0.1), pair) == pytest.approx(-log_sigmoid(0.1 * 24))


def test_the_nll_term_is_per_token_of_the_chosen_response() -> None:
    pair = logps(-10.0, -34.0)
    assert loss_of(Loss(nll_weight=0.7), pair) - loss_of(Loss(), pair) == pytest.approx(0.7 * 10 / 4)


def test_rewards_are_beta_times_the_log_ratio() -> None:
    outcome = preference_loss(Loss(beta=0.1), logps(-10.0, -34.0, (-12.0, -30.0)))
    assert float(outcome.chosen_reward) == pytest.approx(0.2)
    assert float(outcome.rejected_reward) == pytest.approx(-0.4)


def test_bradley_terry_is_log_two_at_equal_rewards_and_falls_with_the_margin() -> None:
    rewards = torch.tensor([0.0, 3.0])
    losses = bradley_terry(rewards, torch.zeros(2))
    assert losses.tolist() == pytest.approx([math.log(2), -log_sigmoid(3.0)], rel=1e-6)


def test_length_normalised_dpo_compares_log_ratios_per_token() -> None:
    pair = logps(-10.0, -34.0, (-12.0, -30.0), tokens=(4, 8))
    outcome = preference_loss(Loss(beta=BETA, length_normalized=True), pair)
    assert float(outcome.loss) == pytest.approx(-log_sigmoid(BETA * (2 / 4 + 4 / 8)))
    assert float(outcome.chosen_reward - outcome.rejected_reward) == pytest.approx(BETA * (2 / 4 + 4 / 8))


def test_a_length_margin_gives_a_longer_chosen_response_a_part_of_its_margin() -> None:
    """So it is learnt the less: the gradient falls with the difference of lengths."""
    longer, shorter = (logps(-10.0, -34.0, (-12.0, -30.0), tokens=tokens) for tokens in ((8, 4), (4, 8)))
    spec = Loss(beta=BETA, length_margin=0.05)
    assert loss_of(spec, longer) == pytest.approx(-log_sigmoid(BETA * 6 + 0.05 * 4))
    assert loss_of(spec, shorter) == pytest.approx(-log_sigmoid(BETA * 6 - 0.05 * 4))


def test_sppo_pulls_each_response_towards_its_win_rate() -> None:
    spec = Loss(type=LossType.SPPO, beta=BETA)
    best = logps(-12.0 + 0.5 / BETA, -30.0 - 0.5 / BETA, (-12.0, -30.0))
    assert loss_of(spec, best) == pytest.approx(0.0, abs=1e-9)
    assert loss_of(spec, logps(-12.0, -30.0, (-12.0, -30.0))) == pytest.approx(2 * (0.5 / BETA) ** 2)


def test_rebel_regresses_the_difference_of_log_ratios_on_that_of_the_rewards() -> None:
    pair = replace(logps(-10.0, -34.0, (-12.0, -30.0)), reward_margin=torch.tensor([1.5], dtype=torch.float64))
    assert loss_of(Loss(type=LossType.REBEL, beta=BETA), pair) == pytest.approx((BETA * 6 - 1.5) ** 2)


@pytest.mark.parametrize(
    ("aligned", "clamped", "weight"), [(-0.5, False, math.exp(-0.5)), (0.5, False, math.exp(0.5)), (0.5, True, 1.0)]
)
def test_a_pair_counts_as_the_policy_finds_it_probable(aligned: float, clamped: bool, weight: float) -> None:
    assert float(policy_weight(torch.tensor([aligned], dtype=torch.float64), clamped=clamped)) == pytest.approx(weight)


def test_losses_without_a_reference_say_so() -> None:
    assert {kind for kind in LossType if not kind.needs_reference} == {LossType.SIMPO, LossType.CPO}
