"""Which examples each step reads, and at what learning rate."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.resource.compute import LrSchedule, Optimization
from rlhf_api.stage import StageConfig
from rlhf_trainer.training.rank.schedule import Schedule
from rlhf_trainer.training.stage import training_seed


def optimization(**changes: Any) -> Optimization:
    return Optimization.model_validate({"epochs": 1, "learningRate": 1e-3, "globalBatchSize": 8, **changes})


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 17), st.integers(1, 5))
def test_every_epoch_reads_every_example_once_whatever_the_batch_and_ranks(
    examples: int, epochs: int, batch: int, world: int
) -> None:
    schedule = Schedule.plan(examples, optimization(epochs=epochs, globalBatchSize=batch), seed=3)
    read = Counter(i for step in range(len(schedule.steps)) for rank in range(world) for i in schedule.share(step, rank, world))
    assert read == dict.fromkeys(range(examples), epochs)
    assert all(len(step) == batch for step in schedule.steps[:-1])


@given(st.integers(1, 40), st.integers(1, 16))
def test_defect_shares_of_ranks_are_disjoint_over_all_nodes(examples: int, world: int) -> None:
    schedule = Schedule.plan(examples, optimization(globalBatchSize=40), seed=0)
    shares = [set(schedule.share(0, rank, world)) for rank in range(world)]
    assert sum(map(len, shares)) == len(set().union(*shares)) == examples


def test_no_two_trainings_share_a_seed() -> None:
    """Runs of neighbouring seeds, their iterations and their stages."""
    work = {"stage": "resolve", "target": "sft", "kind": "policy"}
    run = {"namespace": "default", "name": "a", "uid": "u"}
    configs = [
        StageConfig.model_validate(
            {"run": run, "iteration": t, "seed": seed, "fingerprint": "0" * 64, "storage": {"url": "s3://b/c"}, "work": work}
        )
        for seed in range(4)
        for t in (None, 1, 2, 3)
    ]
    assert len({training_seed(config) for config in configs}) == len(configs)


def test_half_an_epoch_reads_half_of_the_examples() -> None:
    schedule = Schedule.plan(40, optimization(epochs=0.5), seed=0)
    assert len({i for step in schedule.steps for i in step}) == 20


def test_max_steps_bounds_whatever_the_epochs() -> None:
    assert len(Schedule.plan(40, optimization(epochs=10, maxSteps=3), seed=0).steps) == 3


@pytest.mark.parametrize("changes", [{}, {"maxSteps": 3}])
def test_the_epoch_of_a_step_counts_what_was_read_and_not_what_was_planned(changes: dict[str, Any]) -> None:
    schedule = Schedule.plan(40, optimization(epochs=1.1, **changes), seed=0)
    expected = [0.2, 0.4, 0.6] if changes else [0.2, 0.4, 0.6, 0.8, 1.0, 1.1]
    assert [schedule.epoch(step) for step in range(len(schedule.steps))] == pytest.approx(expected)


def test_the_order_depends_on_the_seed_and_on_nothing_else() -> None:
    def steps(seed: int) -> Any:
        return Schedule.plan(40, optimization(epochs=2), seed).steps

    assert steps(1) == steps(1)
    assert steps(1) != steps(2)


@pytest.mark.parametrize("kind", [LrSchedule.COSINE, LrSchedule.LINEAR])
def test_the_learning_rate_is_that_of_transformers_without_its_first_step_at_zero(kind: LrSchedule) -> None:
    """transformers spends its first step at a learning rate of 0; here the warm-up is one step ahead, and all else is equal."""
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    schedule = Schedule.plan(800, optimization(lrSchedule=kind.value, warmupRatio=0.05), seed=0)
    total, warmup = len(schedule.steps), 5
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    make = get_cosine_schedule_with_warmup if kind is LrSchedule.COSINE else get_linear_schedule_with_warmup
    scheduler = make(optimizer, num_warmup_steps=warmup, num_training_steps=total)
    theirs = []
    for _ in range(total):
        theirs.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    ours = [schedule.learning_rate(step) for step in range(total)]
    assert total == 100
    assert ours[:warmup] == pytest.approx(theirs[1 : warmup + 1])
    assert ours[warmup:] == pytest.approx(theirs[warmup:])


def test_a_constant_schedule_stays_at_its_peak_after_the_warm_up() -> None:
    schedule = Schedule.plan(160, optimization(lrSchedule="Constant", warmupRatio=0.1), seed=0)
    assert [schedule.learning_rate(step) for step in range(20)] == pytest.approx([5e-4] + [1e-3] * 19)
