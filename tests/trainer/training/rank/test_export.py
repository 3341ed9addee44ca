"""What a training leaves: a folder that opens elsewhere and computes what was trained, or nothing at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlhf_api.resource.compute import Optimization
from rlhf_api.resource.model import Dtype
from rlhf_api.resource.storage import Storage
from rlhf_trainer.models.folder import MASTER_FILE
from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm
from rlhf_trainer.runtime.errors import ApplicationProblem
from rlhf_trainer.training.job import ObjectiveName, TrainingJob
from rlhf_trainer.training.rank import export as exporting
from support.tiny_models import random_pairs, save_tiny_llama

pytestmark = pytest.mark.engine

#: More rows than the tokenizer has tokens: padded for a kernel's sake, as many models are.
PADDED = 64


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """A process group of this process."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield
    dist.destroy_process_group()


def base(folder: Path, world: Path, *, tied: bool) -> Path:
    save_tiny_llama(folder, tied=tied, vocabulary=PADDED)
    for file in (world / "model").iterdir():
        if "token" in file.name or "template" in file.name:
            shutil.copy(file, folder)
    # transformers refuses to save this mixture: a temperature, and no sampling.
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": False, "temperature": 0.6, "eos_token_id": 2}))
    return folder


def job_of(folder: Path, model: Path, dtype: Dtype) -> TrainingJob:
    job = TrainingJob(
        objective=ObjectiveName.PREFERENCE,
        folder=str(folder),
        examples=str(folder / "examples.arrow"),
        model_folder=str(model),
        dtype=dtype,
        optimization=Optimization.model_validate({"learningRate": 1e-3, "globalBatchSize": 4}),
        deepspeed={},
        gradient_checkpointing=False,
        checkpoint_every_steps=10,
        seed=0,
        fingerprint="f" * 64,
        storage=Storage(url=f"file://{folder}/store"),
        attempt=1,
        node=0,
    )
    job.path.mkdir(parents=True)
    (job.path / "stop_ids.json").write_text("[2, 5]")
    (job.path / "chat_template.jinja").write_bytes(b"{{ bos_token }}\nanother template")
    return job


def trained(model: Path, dtype: Dtype, step: float) -> Any:
    """The model after something moved its attention by `step`; an engine as export knows it."""
    moved = load_causal_lm(model, TORCH_DTYPE[dtype])
    with torch.no_grad():
        moved.model.layers[0].self_attn.q_proj.weight.add_(step)
    return SimpleNamespace(module=SimpleNamespace(model=moved))


@pytest.mark.parametrize("dtype", list(Dtype))
@pytest.mark.parametrize("tied", [False, True])
def test_an_export_opens_elsewhere_and_computes_what_was_trained(world: Path, tmp_path: Path, dtype: Dtype, tied: bool) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    model = base(tmp_path / "model", world, tied=tied)
    job = job_of(tmp_path / "job", model, dtype)
    engine = trained(model, dtype, 0.25)
    exporting.export(engine, job, random_pairs(4))
    again, info = AutoModelForCausalLM.from_pretrained(str(job.export_folder), dtype="auto", output_loading_info=True)
    assert not info["missing_keys"]
    assert again.dtype is TORCH_DTYPE[dtype]
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == tied
    assert again.model.embed_tokens.weight.shape[0] == PADDED
    for name, parameter in engine.module.model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter), name
    assert GenerationConfig.from_pretrained(str(job.export_folder)).eos_token_id == [2, 5]
    assert AutoTokenizer.from_pretrained(str(job.export_folder)).chat_template == "{{ bos_token }}\nanother template"
    assert (job.export_folder / MASTER_FILE).exists() == (dtype is Dtype.BFLOAT16)


def test_the_share_of_parameters_that_changed_is_reported(world: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "model", world, tied=False)
    job = job_of(tmp_path / "job", model, Dtype.FLOAT32)
    engine = trained(model, Dtype.FLOAT32, 0.25)
    exporting.export(engine, job, random_pairs(2))
    counts = json.loads((job.path / "changed.json").read_text())
    assert counts == {
        "parameters": sum(parameter.numel() for parameter in engine.module.model.parameters()),
        "parametersChanged": 32 * 32,
    }


def test_what_changed_is_found_in_a_model_of_several_files(world: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "model", world, tied=False)
    whole = load_causal_lm(model, torch.float32)
    whole.generation_config.temperature = None
    whole.save_pretrained(str(model), max_shard_size="20KB")
    (model / "model.safetensors").unlink(missing_ok=True)
    assert len(list(model.glob("*.safetensors"))) > 1
    job = job_of(tmp_path / "job", model, Dtype.FLOAT32)
    exporting.export(trained(model, Dtype.FLOAT32, 0.25), job, random_pairs(2))
    assert json.loads((job.path / "changed.json").read_text())["parametersChanged"] == 32 * 32


def test_steps_below_the_spacing_of_bf16_vanish_from_the_export_and_are_counted_so(world: Path, tmp_path: Path) -> None:
    """Why an iteration goes on from fp32 masters: at a learning rate of 5e-7 most of what is learnt is below it."""
    model = base(tmp_path / "model", world, tied=False)
    job = job_of(tmp_path / "job", model, Dtype.BFLOAT16)
    exporting.export(trained(model, Dtype.BFLOAT16, 1e-6), job, random_pairs(2))
    counts = json.loads((job.path / "changed.json").read_text())
    assert counts["parametersChanged"] < 0.01 * counts["parameters"]


def test_defect_an_export_that_computes_something_else_is_not_sealed(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever went wrong on the way: here a layer that was not gathered."""
    model = base(tmp_path / "model", world, tied=False)
    gather = exporting._gather

    def without_a_layer(*arguments: Any) -> Any:
        state, master = gather(*arguments)
        state["model.layers.1.mlp.down_proj.weight"].zero_()
        return state, master

    monkeypatch.setattr(exporting, "_gather", without_a_layer)
    for dtype in Dtype:
        job = job_of(tmp_path / str(dtype), model, dtype)
        with pytest.raises(ApplicationProblem, match="does not compute what was trained") as raised:
            exporting.export(trained(model, dtype, 0.25), job, random_pairs(4))
        assert raised.value.reason == "ExportMismatch"
