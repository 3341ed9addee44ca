"""From a DeepSpeed engine to a folder that AutoModel and vLLM open; loaded again and compared before anyone else sees it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file

from rlhf_api.resource.model import Dtype
from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.logps import device_of, score_examples
from rlhf_trainer.forward.rewards import completion_rewards
from rlhf_trainer.forward.rows import Packing, build_batch
from rlhf_trainer.models.folder import MASTER_FILE
from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm, load_reward_model
from rlhf_trainer.runtime.errors import ApplicationProblem
from rlhf_trainer.training.job import ObjectiveName, TrainingJob

#: Mean absolute difference per token between the trained model and its export. Both run the same kernels on the same bits.
TOLERANCE = {Dtype.FLOAT32: 1e-4, Dtype.BFLOAT16: 2e-2}


def export(engine: Any, job: TrainingJob, probe: Sequence[Example]) -> None:
    """Collective. Rank 0 writes job.export_folder, layer by layer: weights in the policy's dtype and, for bf16, fp32 masters.

    `probe`: a few examples on which the loaded export must agree. Raises ApplicationProblem when it does not.
    """
    model = engine.module.model
    before = _fingerprint_of_outputs(model, probe, job)
    state, master = _gather(model, job.dtype)
    if dist.get_rank() == 0:
        _write(model, state, master, job)
        after = _fingerprint_of_outputs(_load_again(job, model), probe, job)
        difference = sum(abs(a - b) for a, b in zip(before, after, strict=True)) / max(1, len(before))
        if not difference <= TOLERANCE[job.dtype]:
            raise ApplicationProblem(
                f"The exported checkpoint does not compute what was trained: its outputs differ by {difference:.3g} on average "
                f"(allowed: {TOLERANCE[job.dtype]}). Nothing was sealed.",
                reason="ExportMismatch",
            )
    dist.barrier()


def _gather(model: Any, dtype: Dtype) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Full parameters on rank 0, one at a time. named_parameters names a tied tensor once: save_pretrained keeps the tie."""
    from deepspeed.utils import safe_get_full_fp32_param

    state: dict[str, torch.Tensor] = {}
    master: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        full = safe_get_full_fp32_param(parameter)
        full = parameter.detach() if full is None else full
        if dist.get_rank() == 0:
            state[name] = full.to("cpu", TORCH_DTYPE[dtype], copy=True)
            if dtype is Dtype.BFLOAT16:
                master[name] = full.to("cpu", torch.float32, copy=True)
    if dist.get_rank() == 0:
        persistent = model.state_dict().keys()
        state |= {name: buffer.detach().cpu().clone() for name, buffer in model.named_buffers() if name in persistent}
    return state, master


def _write(model: Any, state: dict[str, torch.Tensor], master: dict[str, torch.Tensor], job: TrainingJob) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    folder = job.export_folder
    folder.mkdir(parents=True, exist_ok=True)
    model.config.dtype = TORCH_DTYPE[job.dtype]
    tokenizer = AutoTokenizer.from_pretrained(job.model_folder, trust_remote_code=job.trust_remote_code)
    if job.objective is ObjectiveName.BRADLEY_TERRY:
        model.config.pad_token_id = tokenizer.pad_token_id
    # What the base model's generation config says of sampling is not ours; its invalid mixtures would refuse to be saved.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id, eos_token_id=_stop_ids(job)
    )
    model.save_pretrained(str(folder), state_dict=state)
    if job.objective is not ObjectiveName.BRADLEY_TERRY:
        model.generation_config.save_pretrained(str(folder))
    tokenizer.chat_template = (job.path / "chat_template.jinja").read_bytes().decode()
    tokenizer.save_pretrained(str(folder))
    if master:
        (folder / "master").mkdir(exist_ok=True)
        save_file(master, str(folder / MASTER_FILE))
    (job.path / "changed.json").write_text(json.dumps(_changed(job, state)))


def _stop_ids(job: TrainingJob) -> list[int]:
    ids: list[int] = json.loads((job.path / "stop_ids.json").read_text())
    return ids


def _load_again(job: TrainingJob, model: Any) -> Any:
    load = load_reward_model if job.objective is ObjectiveName.BRADLEY_TERRY else load_causal_lm
    again = load(job.export_folder, TORCH_DTYPE[job.dtype], trust_remote_code=job.trust_remote_code)
    return again.to(device_of(model))


@torch.no_grad()
def _fingerprint_of_outputs(model: Any, probe: Sequence[Example], job: TrainingJob) -> list[float]:
    """Per-token log-probs, or rewards, of the probe."""
    model.eval()
    if job.objective is ObjectiveName.BRADLEY_TERRY:
        return [r for e in probe for r in completion_rewards(model, build_batch([[e]]).to(device_of(model))).tolist()]
    values: list[float] = []
    for example in probe:
        for row in score_examples(model, [example], Packing(row_length=1, token_budget=1)):
            values += [logp / max(1.0, tokens) for logp, tokens in zip(row.logps, row.tokens, strict=True)]
    return values


def _changed(job: TrainingJob, state: dict[str, torch.Tensor]) -> dict[str, int]:
    """How many parameters of the export differ from what the training started from: in bf16, small steps vanish."""
    total = sum(tensor.numel() for tensor in state.values())
    same = 0
    for file in sorted(Path(job.model_folder).glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as former:
            for name in state.keys() & set(former.keys()):
                same += int((former.get_tensor(name).to(state[name].dtype) == state[name]).sum())
    return {"parameters": total, "parametersChanged": total - same}
