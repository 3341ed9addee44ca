"""What a status says beside its stages: gates and metrics of iterations, the best iterate and its checkpoint, where the run is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rlhf_api.metrics import Metric
from rlhf_api.resource.evaluation import Gate
from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import CheckpointStatus, RLHFRunStatus
from rlhf_api.words import StageName
from rlhf_operator.core.chain.gates import wait_for_benchmark
from rlhf_operator.core.chain.history import History
from rlhf_operator.core.chain.iterates import Iterates
from rlhf_operator.core.cursor import iteration_of, stage_at_work, stages_of, with_iteration, with_stage
from rlhf_operator.core.observed import Environment


def accepted(run: RLHFRun, environment: Environment, now: datetime) -> RLHFRunStatus:
    """The run's status with what is fixed once, at its start: the image, the time, T for the hold-outs."""
    status = _with_beside(run.status or RLHFRunStatus(), run.spec.gates)
    return status.model_copy(
        update={
            "observed_generation": run.metadata.generation,
            "start_time": status.start_time or now,
            "image": status.image or run.spec.image or environment.image,
            "prompt_iterations": status.prompt_iterations or run.spec.iterations,
        }
    )


def _with_beside(status: RLHFRunStatus, gates: Sequence[Gate]) -> RLHFRunStatus:
    """An older version's CRD, rolled back to in between, has cut the word off."""
    for iteration, stage in list(stages_of(status)):
        if stage.name is StageName.BENCHMARK and not stage.beside and not wait_for_benchmark(gates, iteration or 0):
            status = with_stage(status, iteration, stage.model_copy(update={"beside": True}))
    return status


def with_iterates(status: RLHFRunStatus, history: History, iterates: Iterates) -> RLHFRunStatus:
    """Metrics, verdicts and `discarded` of every evaluated iteration; the best iterate so far and its checkpoint."""
    for iterate in iterates.known[1:]:
        entry = iteration_of(status, iterate.number)
        update = {"metrics": dict(iterate.metrics), "gates": list(iterate.gates), "discarded": iterate.discarded}
        status = with_iteration(status, entry.model_copy(update=update))
    if not iterates.known:
        return status
    best = iterates.best(len(iterates.known))
    win_rate = iterates.known[best].metrics.get(Metric.WIN_RATE_VS_INITIAL)
    return status.model_copy(
        update={
            "best_iteration": best,
            "win_rate": None if win_rate is None else round(win_rate.value, 4),
            "checkpoint": _checkpoint(status, history, best),
        }
    )


def with_place(status: RLHFRunStatus) -> RLHFRunStatus:
    """`iteration` and `stage`: at work, or the last that were. What is beside the chain is told where the chain waits for it."""
    current = stage_at_work(status)
    if current is not None:
        iteration, stage = current
        return status.model_copy(update={"iteration": iteration or status.iteration, "stage": stage.name})
    return status


def _checkpoint(status: RLHFRunStatus, history: History, best: int) -> CheckpointStatus | None:
    """None for a pi_0 that is a model from outside."""
    where = (best, StageName.TRAIN) if best else (None, StageName.SFT)
    if history.artifact(*where) is None:
        return None
    for iteration, stage in stages_of(status):
        if (iteration, stage.name) == where and stage.artifact is not None:
            folder = "" if stage.artifact.folder is None else f"/{stage.artifact.folder}"
            return CheckpointStatus(url=f"{stage.artifact.url}{folder}", digest=stage.artifact.digest)
    return None
