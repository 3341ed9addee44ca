"""The DeepSpeed loop, on two ranks over gloo: the same parameters as plain torch, whatever ZeRO does with them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_api.resource.compute import Optimization
from rlhf_trainer.runtime.errors import ApplicationProblem
from rlhf_trainer.training.rank import loop
from support.plain_torch import named, train_dpo
from support.tiny_models import load, random_pairs, save_tiny_llama, save_tiny_mistral
from support.training_lab import COMPILED, Case, Finding, run_cases

pytestmark = pytest.mark.engine

STAGES = (0, 1, 2, 3)
ONE_STILL_STEP = {"epochs": 1, "learningRate": 1e-12, "globalBatchSize": 14, "weightDecay": 0.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_tiny_llama(folder / "llama")
    save_tiny_llama(folder / "tied", tied=True)
    save_tiny_mistral(folder / "sliding", window=4)
    return folder


@pytest.fixture(scope="module")
def master(models: Path) -> Path:
    """fp32 weights that bf16 cannot hold."""
    from safetensors.torch import save_file

    weights = {name: parameter.detach() + 1e-5 for name, parameter in load(models / "llama").named_parameters()}
    save_file(weights, models / "master.safetensors")
    return models / "master.safetensors"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def one_rank(models: Path, lab: Path) -> dict[str, Finding]:
    llama = str(models / "llama")
    return run_cases(lab, [Case("one", llama), Case("moved+1", llama, checkpoint_every_steps=4)], ranks=1)


@pytest.fixture(scope="module")
def two_ranks(models: Path, master: Path, lab: Path, one_rank: dict[str, Finding]) -> dict[str, Finding]:
    llama, tied = str(models / "llama"), str(models / "tied")
    cases = [
        *(Case(f"zero{stage}", llama, zero_stage=stage) for stage in STAGES),
        *(Case(f"bf16-zero{stage}", llama, zero_stage=stage, dtype="bfloat16") for stage in (0, 2, 3)),
        *(
            Case(f"master-zero{stage}", llama, zero_stage=stage, dtype="bfloat16", master=str(master), optimization=ONE_STILL_STEP)
            for stage in STAGES
        ),
        Case("chunks", llama, zero_stage=3, chunk=7, gradient_checkpointing=True),
        Case("tied", tied, zero_stage=2),
        Case("tied-zero3", tied, zero_stage=3),
        *(Case(f"sliding-zero{stage}", str(models / "sliding"), zero_stage=stage) for stage in (2, 3)),
        Case("reward-zero3", llama, zero_stage=3, objective="bradley-terry"),
        Case("reward-zero1", llama, zero_stage=1, objective="bradley-terry"),
        Case("resumed+1", llama, stop_at=3),
        Case("resumed+2", llama),
        Case("periodic+1", llama, checkpoint_every_steps=2),
        Case("bf16-resumed+1", llama, dtype="bfloat16", stop_at=3),
        Case("bf16-resumed+2", llama, dtype="bfloat16"),
        Case("early+1", llama, stop_at=0),
        Case("moved+2", llama),
    ]
    return run_cases(lab, cases, ranks=2)


@pytest.fixture(scope="module")
def plain(models: Path) -> tuple[Any, list[dict[str, float]]]:
    case = Case("plain", "")
    return train_dpo(load(models / "llama"), random_pairs(case.pairs), Optimization.model_validate(case.optimization))


def test_no_rank_needs_a_compiler(one_rank: dict[str, Finding], two_ranks: dict[str, Finding], lab: Path) -> None:
    assert not (lab / COMPILED).exists()


def assert_same(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float = 5e-5) -> None:
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=tolerance, rtol=0, msg=named(name))


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_with_uneven_micro_batches_train_what_plain_torch_trains(
    two_ranks: dict[str, Finding], plain: tuple[Any, list[dict[str, float]]], stage: int
) -> None:
    """Batches of 5 pairs on two ranks: 3 and 2, in a different number of micro-batches; clipping and weight decay are at work."""
    model, lines = plain
    found = two_ranks[f"zero{stage}"]
    assert_same(found.parameters, {name: parameter.detach() for name, parameter in model.named_parameters()})
    assert [line["loss"] for line in found.lines] == pytest.approx([line["loss"] for line in lines], abs=1e-4)
    assert [line["grad_norm"] for line in found.lines] == pytest.approx([line["grad_norm"] for line in lines], rel=1e-3)
    assert max(line["grad_norm"] for line in lines) > 0.7


def test_the_parameters_have_moved_by_more_than_the_tolerance(models: Path, plain: tuple[Any, list[dict[str, float]]]) -> None:
    before = {name: parameter.detach() for name, parameter in load(models / "llama").named_parameters()}
    assert max(float((p.detach() - before[name]).abs().max()) for name, p in plain[0].named_parameters()) > 1e-2


def test_chunks_and_gradient_checkpointing_change_nothing_under_zero_3(two_ranks: dict[str, Finding]) -> None:
    """Ranks have a different number of chunks, and ZeRO-3 gathers by module call: this hung when a chunk was a call."""
    assert_same(two_ranks["chunks"].parameters, two_ranks["zero3"].parameters)


def test_the_number_of_ranks_changes_nothing(one_rank: dict[str, Finding], two_ranks: dict[str, Finding]) -> None:
    one = one_rank["one"]
    assert_same(one.parameters, two_ranks["zero2"].parameters)
    assert [line["loss"] for line in one.lines] == pytest.approx([line["loss"] for line in two_ranks["zero2"].lines], abs=1e-4)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bf16_trains_on_fp32_masters_and_keeps_rotary_frequencies(two_ranks: dict[str, Finding], stage: int) -> None:
    found = two_ranks[f"bf16-zero{stage}"]
    assert found.parameter_dtypes == ["torch.bfloat16"]
    assert set(found.buffers.values()) == {"torch.float32"}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in found.parameters.values())
    for name, tensor in found.exported.items():
        assert torch.equal(tensor, found.parameters[name].bfloat16())
    assert [line["loss"] for line in found.lines] == pytest.approx([line["loss"] for line in two_ranks["zero2"].lines], abs=0.1)


@pytest.mark.parametrize("stage", STAGES)
def test_a_warm_start_goes_on_from_the_masters_and_not_from_their_rounding(
    two_ranks: dict[str, Finding], master: Path, stage: int
) -> None:
    from safetensors.torch import load_file

    weights = load_file(master)
    assert_same(two_ranks[f"master-zero{stage}"].parameters, weights, tolerance=1e-7)
    assert any(float((tensor - tensor.bfloat16().float()).abs().max()) > 1e-6 for tensor in weights.values())


@pytest.mark.parametrize("name", ["tied", "tied-zero3"])
def test_defect_tied_embeddings_stay_tied_and_are_never_resized(two_ranks: dict[str, Finding], models: Path, name: str) -> None:
    case = Case("plain", "")
    model, _ = train_dpo(load(models / "tied"), random_pairs(case.pairs), Optimization.model_validate(case.optimization))
    found = two_ranks[name].parameters
    assert "lm_head.weight" not in found
    assert found["model.embed_tokens.weight"].shape == (61, 32)
    assert_same(found, {name: parameter.detach() for name, parameter in model.named_parameters()}, tolerance=1e-4)


@pytest.mark.parametrize("name", ["sliding-zero2", "sliding-zero3"])
def test_a_window_shorter_than_the_sequences_trains_as_in_plain_torch(
    two_ranks: dict[str, Finding], models: Path, name: str
) -> None:
    """It reads one completion a row, and ranks with different numbers of them go through it equally often."""
    case = Case("plain", "")
    pairs = random_pairs(case.pairs)
    assert max(pair.longest for pair in pairs) > 4
    model, lines = train_dpo(load(models / "sliding"), pairs, Optimization.model_validate(case.optimization))
    found = two_ranks[name]
    assert_same(found.parameters, {name: parameter.detach() for name, parameter in model.named_parameters()}, tolerance=1e-4)
    assert [line["loss"] for line in found.lines] == pytest.approx([line["loss"] for line in lines], abs=1e-4)


def test_defect_an_export_is_whole_at_every_zero_stage(two_ranks: dict[str, Finding], models: Path) -> None:
    shapes = {name: parameter.shape for name, parameter in load(models / "llama").named_parameters()}
    for stage in STAGES:
        for prefix in ("zero", "master-zero"):
            assert {name: tensor.shape for name, tensor in two_ranks[f"{prefix}{stage}"].exported.items()} == shapes


def test_a_reward_model_trains_the_same_under_zero_3(two_ranks: dict[str, Finding]) -> None:
    assert_same(two_ranks["reward-zero3"].parameters, two_ranks["reward-zero1"].parameters, tolerance=1e-4)
    lines = two_ranks["reward-zero3"].lines
    assert lines[0]["loss"] == pytest.approx(0.693, abs=0.1)
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_a_stop_asked_of_one_rank_makes_all_checkpoint_and_end(two_ranks: dict[str, Finding]) -> None:
    stopped = two_ranks["resumed+1"]
    assert stopped.ended is not None
    assert stopped.ended.startswith("Preempted: Stopped by SIGTERM after step 3 of 6")
    assert [key for key in stopped.checkpoints if key.endswith("step-0000003-attempt-1-world-2.json")]
    assert len(stopped.lines) == 3


@pytest.mark.parametrize(("resumed", "whole"), [("resumed+2", "zero2"), ("bf16-resumed+2", "bf16-zero2")])
def test_a_resumed_training_ends_as_an_uninterrupted_one(two_ranks: dict[str, Finding], resumed: str, whole: str) -> None:
    """Parameters, optimizer states, order of the data, learning rates, and the lines of metrics.jsonl."""
    assert two_ranks[resumed].ended is None
    assert_same(two_ranks[resumed].parameters, two_ranks[whole].parameters, tolerance=1e-6)
    assert two_ranks[resumed].lines == [pytest.approx(line, abs=1e-5) for line in two_ranks[whole].lines]


def test_what_a_resumed_training_writes_on_is_its_owners_to_write(two_ranks: dict[str, Finding]) -> None:
    """A store of this machine is read-only, and gives its files by their inodes: only root could go on."""
    assert two_ranks["resumed+2"].metrics_writable


def test_a_periodic_checkpoint_is_kept_until_the_next_is_whole(two_ranks: dict[str, Finding]) -> None:
    records = [key for key in two_ranks["periodic+1"].checkpoints if key.endswith(".json")]
    assert [key.rpartition("/")[2] for key in records] == ["step-0000004-attempt-1-world-2.json"]


def test_a_stop_before_the_first_step_leaves_nothing_to_keep(two_ranks: dict[str, Finding]) -> None:
    early = two_ranks["early+1"]
    assert (early.ended or "").startswith("Preempted")
    assert early.checkpoints == []


def test_a_checkpoint_of_another_number_of_ranks_is_refused(two_ranks: dict[str, Finding]) -> None:
    assert (two_ranks["moved+2"].ended or "").startswith("ConfigurationProblem: Step 4 of this training")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"loss": math.nan, "grad_norm": 1.0}, "LossNotFinite"),
        ({"loss": 0.7, "grad_norm": math.inf}, "GradientNotFinite"),
        ({"loss": 0.7, "grad_norm": math.nan}, "GradientNotFinite"),
    ],
)
def test_a_step_that_is_not_finite_ends_the_training_before_it_counts(line: dict[str, float], reason: str) -> None:
    """DeepSpeed skips such a step, or takes it into the weights: neither may get into metrics or a checkpoint."""
    with pytest.raises(ApplicationProblem, match="step 7 ") as caught:
        loop._check_finite(6, line)
    assert caught.value.reason == reason
