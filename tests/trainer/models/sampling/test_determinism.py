"""Deterministic sampling: what vLLM's batch-invariant mode needs is refused in words where it is not there."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhf_trainer.models.sampling.determinism import (
    BACKENDS,
    VARIABLE,
    require_aligned,
    require_attention,
    require_gpu,
    require_same,
    require_settings,
)
from rlhf_trainer.runtime.environment import engine_environment
from rlhf_trainer.runtime.errors import ConfigurationProblem


@dataclass(frozen=True)
class Said:
    ids: list[int]
    logps: list[float]


@pytest.mark.parametrize(
    ("cpu", "capability", "words"),
    [
        (True, None, "on a CPU vLLM has no batch-invariant mode"),
        (False, (7, 5), "this GPU has compute capability 7.5: vLLM's batch-invariant mode needs 8.0 or higher"),
    ],
)
def test_where_it_cannot_be_is_said(cpu: bool, capability: tuple[int, int] | None, words: str) -> None:
    with pytest.raises(ConfigurationProblem) as raised:
        require_gpu(cpu=cpu, capability=capability)
    assert words in str(raised.value)


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (10, 0), None])
def test_gpus_that_have_it_are_not_refused(capability: tuple[int, int] | None) -> None:
    require_gpu(cpu=False, capability=capability)


def test_settings_that_switch_it_off_are_named() -> None:
    require_settings({}, {})
    require_settings({"attention_backend": "FLASH_ATTN"}, {VARIABLE: "1"})
    with pytest.raises(ConfigurationProblem, match="VLLM_BATCH_INVARIANT is '0' in the environment of stage sample"):
        require_settings({}, {VARIABLE: "0"})
    with pytest.raises(
        ConfigurationProblem, match=r"--attention-backend=FLASHINFER, which is not batch-invariant\. Name one of FLASH"
    ):
        require_settings({"attention_backend": "FLASHINFER"}, {})


def test_parts_of_a_model_that_are_added_up_are_aligned() -> None:
    require_aligned("hf://a/b", 4096, 2, 8)
    require_aligned("hf://a/b", 12, 2, 1)
    with pytest.raises(ConfigurationProblem, match=r"has 24 bytes \(hidden_size 12\): with sample.engine.tensorParallelSize 2"):
        require_aligned("hf://a/b", 12, 2, 2)


def test_layers_that_do_not_attend_are_named() -> None:
    """As vLLM's issue 50935 has it of Qwen 3.5."""
    require_attention("hf://a/b", ())
    require_attention("hf://a/b", ["full_attention", "sliding_attention"])
    with pytest.raises(
        ConfigurationProblem, match="has layers of kind linear_attention, for which vLLM has no batch-invariant kernels"
    ):
        require_attention("hf://a/b", ["linear_attention", "full_attention"])


def test_an_engine_that_takes_no_notice_is_refused() -> None:
    one, other = Said([3, 4, 5], [-0.5, -0.25, -1.0]), Said([7], [-0.125])
    require_same([one, other], [Said([3, 4, 5], [-0.5, -0.25, -1.0]), Said([7], [-0.125])])
    for changed, words in (
        (Said([3, 4, 6], [-0.5, -0.25, -1.0]), "request 0 of a trial is answered otherwise in a batch than alone, from token 2 on"),
        (Said([3, 4, 5], [-0.5, -0.25000001, -1.0]), "from token 1 on"),
        (Said([3], [-0.5]), "from token 1 on"),
    ):
        with pytest.raises(ConfigurationProblem, match=words):
            require_same([one, other], [changed, other])


def test_the_environment_of_a_gpus_engine_asks_for_it_and_no_other_does() -> None:
    assert engine_environment(cpu=False, deterministic=True)[VARIABLE] == "1"
    assert VARIABLE not in engine_environment(cpu=False)
    assert VARIABLE not in engine_environment(cpu=True)


def test_the_backends_are_those_of_the_installed_vllm() -> None:
    """By its source: most of them cannot be imported without a GPU."""
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.submodule_search_locations
    named: set[object] = set()
    for file in (Path(found.submodule_search_locations[0]) / "v1/attention/backends").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                told = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
                if "supports_batch_invariance" in told:
                    named |= {each.value for each in ast.walk(told["get_name"]) if isinstance(each, ast.Constant)}
    assert named == set(BACKENDS)
