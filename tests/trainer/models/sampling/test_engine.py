"""vLLM on a CPU, on prompts of ordinary length; and what it refuses, in words that no retry would change."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.data import HoldOut, Prompts, PromptSource
from rlhf_api.resource.model import Dtype, ModelRef
from rlhf_api.resource.sampling import Engine, MixtureEntry
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import ModelInput, PolicyInput, PromptSlice, Sampler, SampleWork, StageConfig
from rlhf_api.words import StageExit
from rlhf_trainer.data.parquet import MESSAGES
from rlhf_trainer.models.sampling.engine import SamplingEngine
from rlhf_trainer.quickstart import task
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.stages import ForkServer, config_of

PROMPTS, WORDS, ANSWERS = 300, 96, 8
#: Tokens of each, with BOS, the roles and the end.
LENGTH = 100

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def make_model(world: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """A Llama of one layer with the world's tokenizer; `changes` are of its configuration."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(**changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("model")
        config = json.loads((world / "model" / "config.json").read_text()) | {
            "hidden_size": 64,
            "head_dim": None,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
        }
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**config | changes)).save_pretrained(str(folder))
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(world / "model" / name, folder)
        return folder

    return make


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    texts = [" ".join(rng.choices(task.WORDS, k=WORDS)) for _ in range(PROMPTS)]
    file = tmp_path_factory.mktemp("prompts") / "prompts.parquet"
    rows = [[{"role": "user", "content": text}] for text in texts]
    pq.write_table(pa.table({"messages": rows}, schema=pa.schema([("messages", MESSAGES)])), file)
    return file


def sampling(model: Path, prompts: Path, storage: Storage, arguments: Sequence[str] = (), parts: int = 1) -> StageConfig:
    policy = PolicyInput(model=ModelInput(source=ModelRef(uri=f"file://{model}")), dtype=Dtype.FLOAT32)
    cut = Prompts(source=PromptSource(uri=f"file://{prompts}"), per_iteration=PROMPTS, validation=HoldOut(size=0))
    work = SampleWork(
        prompts=PromptSlice(iterations=1, iteration=1, prompts=cut, max_prompt_length=LENGTH),
        samplers=[Sampler(entry=MixtureEntry(name="latest", weight=1.0), iterate=0, policy=policy)],
        completions_per_prompt=ANSWERS,
        max_new_tokens=8,
        deterministic=False,
    )
    return config_of(work, storage, engine=Engine(extra_args=list(arguments), tensor_parallel_size=parts))


@pytest.mark.engine
@pytest.mark.parametrize(
    ("arguments", "parts"), [((), 1), ((f"--long-prefill-token-threshold={LENGTH}",), 2)], ids=["plain", "as on a GPU"]
)
def test_prompts_of_ordinary_length_are_answered_on_a_cpu(
    make_model: MakeModel,
    prompts: Path,
    storage: Storage,
    fork_server: ForkServer,
    tmp_path: Path,
    arguments: Sequence[str],
    parts: int,
) -> None:
    """More prompt tokens wait than one step reads: vLLM would split a prompt over two steps, and wind its generator back.

    A threshold that no prompt exceeds splits none, and one process has all cores where there are no GPUs to share a model.
    """
    done = fork_server.run(sampling(make_model(), prompts, storage, arguments, parts), tmp_path)
    assert done.code == 0, done.log[-4000:]
    assert done.result is not None
    counts = done.result.counts
    assert (counts["prompts"], counts["promptsTooLong"], counts["completions"]) == (PROMPTS, 0, PROMPTS * ANSWERS)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({"num_attention_heads": 4, "num_key_value_heads": 4}, (), "vLLM refuses to answer these prompts.*head_dim=16"),
        ({}, ("--enable-chunked-prefill",), "--enable-chunked-prefill: on a CPU"),
        ({}, ("--long-prefill-token-threshold=50",), "--long-prefill-token-threshold: on a CPU"),
        ({}, ("--max-num-batched-tokens=64",), "vLLM refuses the model of .* max_num_batched_tokens"),
        ({}, ("--max-num-seqs=[",), "--max-num-seqs=\\[', whose value is no YAML"),
        ({}, ("--max-num-seqs=no",), "vLLM refuses the model of .*: max_num_seqs: Input should be"),
        ({}, ("--enforce-eager=false",), "--enforce-eager=false: on a CPU nothing is compiled"),
        (
            {"num_attention_heads": 4, "num_key_value_heads": 3},
            (),
            "AssertionError: num_heads .4. is not divisible by num_kv_heads",
        ),
    ],
    ids=["heads", "chunked", "threshold", "step too small", "no YAML", "no number", "compiled", "assertion"],
)
def test_what_the_engine_will_never_do_is_a_configuration_problem(
    make_model: MakeModel,
    prompts: Path,
    storage: Storage,
    fork_server: ForkServer,
    tmp_path: Path,
    changes: dict[str, Any],
    arguments: Sequence[str],
    said: str,
) -> None:
    done = fork_server.run(sampling(make_model(**changes), prompts, storage, arguments), tmp_path)
    assert done.code == StageExit.CONFIGURATION, done.log[-4000:]
    assert done.result is not None
    assert re.search(said, done.result.problem or ""), done.result.problem


@pytest.mark.engine
def test_a_class_that_the_engine_does_not_have_is_named_and_not_what_it_has(make_model: MakeModel, tokenizer: Any) -> None:
    folder = make_model()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["MysteryForCausalLM"]}))
    with pytest.raises(ConfigurationProblem, match=r"MysteryForCausalLM'\] are not supported") as refused:
        SamplingEngine(folder, tokenizer, frozenset({2}), Dtype.FLOAT32, 64, Engine())
    assert len(str(refused.value)) < 300


@pytest.mark.engine
def test_an_assertion_without_words_is_told_as_it_stands(
    make_model: MakeModel, prompts: Path, storage: Storage, fork_server: ForkServer, tmp_path: Path
) -> None:
    folder = make_model()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 9}))
    done = fork_server.run(sampling(folder, prompts, storage), tmp_path)
    assert done.code == StageExit.CONFIGURATION, done.log[-4000:]
    assert done.result is not None
    assert re.search(r"vLLM refuses the model of .*: AssertionError: assert loaded_weight\.shape", done.result.problem or "")


@pytest.mark.engine
def test_weights_that_are_not_whole_are_named_before_the_engine_starts(make_model: MakeModel, tokenizer: Any) -> None:
    folder = make_model()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ConfigurationProblem, match=rf"^The model of {folder}: model\.safetensors is no safetensors file"):
        SamplingEngine(folder, tokenizer, frozenset({2}), Dtype.FLOAT32, 64, Engine())
