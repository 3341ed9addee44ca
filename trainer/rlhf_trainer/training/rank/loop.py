"""The training loop: pack the rank's share of a step, backward, step, log, checkpoint. DeepSpeed owns parameters and optimizer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.rows import Packing, build_batch, micro_batches
from rlhf_trainer.runtime.errors import ApplicationProblem, Preempted
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.progress import Progress
from rlhf_trainer.training.objectives import Objective

from .checkpoints import Checkpoints
from .schedule import Schedule


@dataclass(frozen=True)
class LoopConfig:
    schedule: Schedule
    packing: Packing
    checkpoint_every_steps: int
    metrics_file: Path


@dataclass
class StepMetrics:
    """Sums over the micro-batches of one step on one rank."""

    loss: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, loss: float, metrics: dict[str, float]) -> None:
        self.loss += loss
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value


def run_loop(
    engine: Any,
    objective: Objective,
    examples: Sequence[Example],
    config: LoopConfig,
    checkpoints: Checkpoints,
    progress: Progress,
    stop_requested: Callable[[], bool],
) -> None:
    """Every step of the schedule from the newest checkpoint on. Metrics go to config.metrics_file, an object a line, TRL's keys.

    Raises Preempted after a collective checkpoint when any rank was asked to stop; ApplicationProblem when the loss or the gradient
    is not finite.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    schedule = config.schedule
    first = checkpoints.restore(engine)
    if rank == 0:
        _keep_lines(config.metrics_file, first)
        if first:
            log.info("a checkpoint holds %d of %d steps: going on from there", first, len(schedule.steps))
    engine.train()
    saved = first
    for step in range(first, len(schedule.steps)):
        if _any_rank(stop_requested(), engine.device):
            if step > saved:
                checkpoints.save(engine, step)
            raise Preempted(f"Stopped by SIGTERM after step {step} of {len(schedule.steps)}; a checkpoint holds what was learnt.")
        step_weight = sum(objective.weight(examples[i]) for i in schedule.steps[step])
        batches = micro_batches([examples[i] for i in schedule.share(step, rank, world)], config.packing)
        count = _most_of_all_ranks(len(batches), engine.device)
        batches += [[]] * (count - len(batches))
        for group in engine.optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        sums = StepMetrics()
        for number, rows in enumerate(batches):
            batch = build_batch(rows).to(engine.device)
            summed = engine(objective, batch)
            # DeepSpeed averages gradients over ranks; the step's loss is a sum over ranks divided by the step's weight.
            engine.set_gradient_accumulation_boundary(number == count - 1)
            engine.backward(summed.loss * (world / step_weight))
            norm = _norm_without_zero(engine) if number == count - 1 else None
            engine.step()
            sums.add(float(summed.loss.detach()), summed.metrics)
        norm = engine.get_global_grad_norm() if norm is None else norm
        line = _line(step, schedule, float(norm), _over_ranks(sums, objective, step_weight, engine.device))
        _check_finite(step, line)
        if rank == 0:
            with config.metrics_file.open("a") as file:
                file.write(json.dumps(line) + "\n")
            progress.update(step + 1, len(schedule.steps), "steps", f"loss {line['loss']:.3f}")
        if step + 1 < len(schedule.steps) and (step + 1) % config.checkpoint_every_steps == 0:
            checkpoints.save(engine, step + 1)
            saved = step + 1
            if rank == 0:
                log.info("%d of %d steps are in a checkpoint", saved, len(schedule.steps))


def _line(step: int, schedule: Schedule, norm: float, means: dict[str, float]) -> dict[str, float]:
    return {
        "step": step + 1,
        "epoch": round(schedule.epoch(step), 4),
        **means,
        "grad_norm": norm,
        "learning_rate": schedule.learning_rate(step),
    }


def _check_finite(step: int, line: dict[str, float]) -> None:
    """Before the step counts. One whose gradient is not finite DeepSpeed leaves out, or takes, and tells nobody in both cases."""
    for name, what, reason in (("loss", "loss", "LossNotFinite"), ("grad_norm", "norm of the gradient", "GradientNotFinite")):
        if not math.isfinite(line[name]):
            raise ApplicationProblem(
                f"The {what} of step {step + 1} is {line[name]}. Lower the learning rate, or look at the data of this step.",
                reason=reason,
            )


def _norm_without_zero(engine: Any) -> float | None:
    """DeepSpeed clips with this norm in fp32 without ZeRO too, and tells nobody; None where it tells."""
    if engine.zero_optimization_stage() > 0:
        return None
    return float(torch.nn.utils.get_total_norm([p.grad for p in engine.module.parameters() if p.grad is not None]))


def _over_ranks(sums: StepMetrics, objective: Objective, weight: float, device: torch.device) -> dict[str, float]:
    names = list(objective.metric_names)
    values = torch.tensor([sums.loss, *(sums.sums.get(name, 0.0) for name in names)], dtype=torch.float64, device=device)
    dist.all_reduce(values)
    means = (values / weight).tolist()
    return {"loss": means[0], **dict(zip(names, means[1:], strict=True))}


def _most_of_all_ranks(count: int, device: torch.device) -> int:
    value = torch.tensor([max(1, count)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return int(value)


def _any_rank(flag: bool, device: torch.device) -> bool:
    value = torch.tensor([int(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value)


def _keep_lines(path: Path, count: int) -> None:
    """A resumed loop writes the lines behind its checkpoint again."""
    if count and path.exists():
        lines = path.read_text().splitlines(keepends=True)[:count]
        path.write_text("".join(lines))
    else:
        path.write_text("")
