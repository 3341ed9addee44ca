"""`torchrun training_lab.py FOLDER`: runs the real loop once for each case of FOLDER/cases.json, in one set of processes.

Importing torch and DeepSpeed takes longer than all cases together. A case's parameters end up in FOLDER/<name>.safetensors.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """What varies; optimization is on the wire form of rlhf_api.resource.compute.Optimization."""

    name: str
    model: str
    zero_stage: int = 2
    dtype: str = "float32"
    pairs: int = 14
    reference_pairs: bool = True
    row_length: int = 40
    token_budget: int = 80
    optimization: dict[str, Any] = field(
        default_factory=lambda: {"epochs": 2, "learningRate": 1e-2, "globalBatchSize": 5, "maxGradNorm": 0.7, "weightDecay": 0.1}
    )
    gradient_checkpointing: bool = False
    checkpoint_every_steps: int = 1000
    stop_at: int | None = None
    """The step before which rank 1 alone is asked to stop."""
    chunk: int = 1024
    master: str | None = None
    objective: str = "preference"


#: In the lab's folder: where torch would put what it compiles.
COMPILED = "compiled"


def write_cases(folder: Path, cases: list[Case]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.json").write_text(json.dumps([asdict(case) for case in cases]))


@dataclass(frozen=True)
class Finding:
    """What became of a case. parameters: what the optimizer holds, fp32; exported: in the case's dtype."""

    parameters: dict[str, Any]
    exported: dict[str, Any]
    lines: list[dict[str, float]]
    ended: str | None
    checkpoints: list[str]
    buffers: dict[str, str]
    parameter_dtypes: list[str]
    metrics_writable: bool


def run_cases(folder: Path, cases: list[Case], ranks: int) -> dict[str, Finding]:
    """One torchrun for all cases, in order. Cases whose names agree up to a + are attempts of one training."""
    import os
    import subprocess

    from safetensors.torch import load_file

    write_cases(folder, cases)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), __file__, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_EXTENSIONS_DIR": str(folder / COMPILED)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(done.stderr[-6000:])
    found = {}
    for case in cases:
        facts = json.loads((folder / f"{case.name}.json").read_text())
        parameters = load_file(folder / f"{case.name}.safetensors")
        export = folder / f"{case.name}.export.safetensors"
        found[case.name] = Finding(parameters, load_file(export) if export.exists() else parameters, **facts)
    return found


def main(folder: Path) -> None:
    import torch
    import torch.distributed as dist

    from rlhf_trainer.training.rank.engine import join_ranks

    torch.set_num_threads(1)
    join_ranks("gloo")
    for fields in json.loads((folder / "cases.json").read_text()):
        _run(folder, Case(**fields))
        dist.barrier()
    dist.destroy_process_group()


def _run(folder: Path, case: Case) -> None:
    import torch
    import torch.distributed as dist
    from safetensors.torch import save_file

    from rlhf_api.resource.compute import DeepSpeed, Optimization
    from rlhf_api.resource.model import Dtype
    from rlhf_api.resource.storage import Storage
    from rlhf_api.resource.training import Loss
    from rlhf_store import open_store
    from rlhf_trainer.forward.rows import Packing
    from rlhf_trainer.models import heads
    from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm, new_reward_model
    from rlhf_trainer.runtime.errors import StageError
    from rlhf_trainer.runtime.progress import Progress
    from rlhf_trainer.training.objectives import BradleyTerryObjective, PreferenceObjective
    from rlhf_trainer.training.rank.checkpoints import Checkpoints, Place
    from rlhf_trainer.training.rank.engine import load_master_weights, start_engine
    from rlhf_trainer.training.rank.export import _gather
    from rlhf_trainer.training.rank.loop import LoopConfig, run_loop
    from rlhf_trainer.training.rank.schedule import Schedule
    from rlhf_trainer.training.zero import deepspeed_config
    from support.tiny_models import random_pairs

    heads.CHUNK = case.chunk
    dtype = Dtype(case.dtype)
    optimization = Optimization.model_validate(case.optimization)
    examples = random_pairs(case.pairs, reference=case.reference_pairs)
    bradley_terry = case.objective == "bradley-terry"
    if bradley_terry:
        model = new_reward_model(Path(case.model), TORCH_DTYPE[dtype], seed=0)
    else:
        model = load_causal_lm(Path(case.model), TORCH_DTYPE[dtype])
    zero = deepspeed_config(DeepSpeed(zero_stage=case.zero_stage), dtype, optimization)
    engine = start_engine(model, zero, optimization, gradient_checkpointing=case.gradient_checkpointing)
    if case.master is not None:
        load_master_weights(engine, Path(case.master))
    work = folder / f"{case.name}-work"
    work.mkdir(exist_ok=True)
    metrics = work / "metrics.jsonl"
    metrics.touch()
    store = open_store(Storage(url=f"file://{folder}/store"))
    fingerprint = case.name.partition("+")[0].encode().hex().ljust(64, "0")
    checkpoints = Checkpoints(store, fingerprint, Place(1, 0), work / "checkpoints", metrics)
    config = LoopConfig(
        Schedule.plan(len(examples), optimization, 0),
        Packing(case.row_length, case.token_budget),
        case.checkpoint_every_steps,
        metrics,
    )
    asked = iter(range(10**6))

    def stop_requested() -> bool:
        return next(asked) == case.stop_at and dist.get_rank() == 1

    objective = BradleyTerryObjective() if bradley_terry else PreferenceObjective(Loss())
    ended = None
    try:
        run_loop(engine, objective, examples, config, checkpoints, Progress(None), stop_requested)
    except StageError as error:
        ended = f"{type(error).__name__}: {error}"
    state, master = _gather(engine.module.model, dtype)
    buffers = {name: str(buffer.dtype) for name, buffer in engine.module.model.named_buffers()}
    if dist.get_rank() == 0:
        save_file(
            {name: tensor.contiguous() for name, tensor in (master or state).items()}, str(folder / f"{case.name}.safetensors")
        )
        if master:
            save_file(
                {name: tensor.contiguous() for name, tensor in state.items()}, str(folder / f"{case.name}.export.safetensors")
            )
        facts = {
            "ended": ended,
            "buffers": buffers,
            "lines": [json.loads(line) for line in metrics.read_text().splitlines()],
            "checkpoints": [info.key for info in store.list(f"checkpoint/{fingerprint}/")],
            "metrics_writable": bool(metrics.stat().st_mode & 0o200),
            "parameter_dtypes": sorted({str(p.dtype) for p in engine.module.model.parameters()}),
        }
        (folder / f"{case.name}.json").write_text(json.dumps(facts))
    engine.destroy()
    del engine, model
    torch.manual_seed(0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(Path(sys.argv[1]))
