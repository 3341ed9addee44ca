"""What one rank of a training stage does, from the guard on the reference to the export."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rlhf_store import open_store
from rlhf_trainer.data.examples import Examples
from rlhf_trainer.forward.attention import require_known_attention
from rlhf_trainer.forward.rows import Packing
from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm, load_reward_model, new_reward_model, without_dropout
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.narrow import present
from rlhf_trainer.runtime.progress import Progress
from rlhf_trainer.training.job import ObjectiveName, TrainingJob
from rlhf_trainer.training.objectives import BradleyTerryObjective, Objective, PreferenceObjective, SupervisedObjective

from .checkpoints import Checkpoints, Place
from .engine import join_ranks, load_master_weights, start_engine
from .export import export
from .guard import check_reference
from .loop import LoopConfig, run_loop
from .schedule import Schedule


def train(job: TrainingJob, examples: Examples, stop_requested: Callable[[], bool]) -> None:
    """Collective: guard, load, train, export. Raises StageError."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    join_ranks("nccl" if cuda else "gloo")
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    packing = Packing.choose(examples.most_tokens, device, job.token_budget)
    if job.guard is not None:
        check_reference(job.guard, job.dtype, examples, device, packing, trust_remote_code=job.trust_remote_code)
    torch.manual_seed(job.seed)
    model = without_dropout(_load(job)).to(device)
    require_known_attention(model, examples.longest)
    engine = start_engine(model, job.deepspeed, job.optimization, gradient_checkpointing=job.gradient_checkpointing)
    if job.master_weights is not None:
        load_master_weights(engine, Path(job.master_weights))
    place = Place(job.attempt, job.node)
    checkpoints = Checkpoints(open_store(job.storage), job.fingerprint, place, job.path / "checkpoints", job.metrics_file)
    schedule = Schedule.plan(len(examples), job.optimization, job.seed)
    config = LoopConfig(schedule, packing, job.checkpoint_every_steps, job.metrics_file)
    progress = Progress.from_environment(log.info) if dist.get_rank() == 0 else Progress(None)
    run_loop(engine, _objective(job), examples, config, checkpoints, progress, stop_requested)
    export(engine, job, probe=examples[:8])
    dist.barrier()
    dist.destroy_process_group()


def _load(job: TrainingJob) -> Any:
    dtype, folder, trust = TORCH_DTYPE[job.dtype], Path(job.model_folder), job.trust_remote_code
    if job.objective is not ObjectiveName.BRADLEY_TERRY:
        return load_causal_lm(folder, dtype, trust_remote_code=trust)
    if job.new_head:
        return new_reward_model(folder, dtype, job.seed, trust_remote_code=trust)
    return load_reward_model(folder, dtype, trust_remote_code=trust)


def _objective(job: TrainingJob) -> Objective:
    match job.objective:
        case ObjectiveName.SUPERVISED:
            return SupervisedObjective()
        case ObjectiveName.BRADLEY_TERRY:
            return BradleyTerryObjective()
        case ObjectiveName.PREFERENCE:
            return PreferenceObjective(present(job.loss, "the loss"))
