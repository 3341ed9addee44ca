"""A folder with everything that a run needs: a model with random weights, a tokenizer, data, a manifest. Nothing is downloaded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rlhf_trainer.data.parquet import MESSAGES

from . import task

SPECIAL = ("<pad>", "<unk>", "<s>", "<|end|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
#: Longest prompt: BOS, role, two words of operation, colon, six words, end, role. Longest sensible answer: six words and the end.
MAX_PROMPT_LENGTH = 16
MAX_NEW_TOKENS = 10


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    iterations: int = 3
    prompts_per_iteration: int = 2000
    validation: int = 300
    test: int = 1000
    demonstrations: int = 19200
    preferences: int = 20000
    sft_steps: int = 600
    sample_shards: int = 1
    width: int = 128
    layers: int = 4


#: Enough to go through every stage, not to learn: for fault tests.
MINI = Size(
    iterations=1,
    prompts_per_iteration=64,
    validation=32,
    test=0,
    demonstrations=2560,
    preferences=512,
    sft_steps=20,
    sample_shards=2,
)


def make_world(folder: Path, seed: int, size: Size, store_url: str | None = None) -> Path:
    """Writes `folder` and returns the manifest's path. The same seed and size give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    _make_model(folder / "model", seed, size)
    unique: dict[str, None] = {}
    while len(unique) < size.iterations * size.prompts_per_iteration + size.validation + size.test:
        unique[task.make_prompt(rng)] = None
    _write(folder / "prompts.parquet", {"messages": [_user(prompt) for prompt in unique]}, {"messages": MESSAGES})
    taught = list(_fresh_prompts(size.demonstrations, rng))
    demonstrations = [[*_user(prompt), _assistant(task.demonstrate(prompt, rng))] for prompt in taught]
    _write(folder / "demonstrations.parquet", {"messages": demonstrations}, {"messages": MESSAGES})
    _write(folder / "preferences.parquet", *_preferences(size.preferences, rng))
    manifest = folder / "run.yaml"
    manifest.write_text(yaml.safe_dump(manifest_of(folder, seed, size, store_url), sort_keys=False))
    return manifest


def _make_model(folder: Path, seed: int, size: Size) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(
        [" ".join(task.WORDS), " : ".join(task.OPERATIONS)], trainers.WordLevelTrainer(special_tokens=list(SPECIAL))
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.width * 8 // 3,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))


def _preferences(count: int, rng: random.Random) -> tuple[dict[str, list[Any]], dict[str, pa.DataType]]:
    """Two attempts at a prompt, the better one chosen; ties are drawn again."""
    columns: dict[str, list[Any]] = {"chosen": [], "rejected": [], "chosen_score": [], "rejected_score": []}
    while len(columns["chosen"]) < count:
        prompt = task.make_prompt(rng)
        scored = sorted(
            ((task.grade(_user(prompt), text), text) for text in (task.attempt(prompt, rng) for _ in range(2))), reverse=True
        )
        (better, chosen), (worse, rejected) = scored
        if better > worse:
            for name, value in zip(
                columns, ([*_user(prompt), _assistant(chosen)], [*_user(prompt), _assistant(rejected)], better, worse), strict=True
            ):
                columns[name].append(value)
    return columns, {"chosen": MESSAGES, "rejected": MESSAGES, "chosen_score": pa.float64(), "rejected_score": pa.float64()}


def manifest_of(folder: Path, seed: int, size: Size, store_url: str | None) -> dict[str, Any]:
    """A run over the data in `folder`; without a store it is for the local backend, which has its own."""

    def uri(name: str) -> str:
        return f"file://{folder.resolve() / name}"

    two_ranks = {"processesPerNode": 2}
    rule = {"type": "Rule", "rule": {"entryPoint": "rlhf_trainer.quickstart.task:grade"}}
    return {
        "apiVersion": "rlhf.dev/v1alpha1",
        "kind": "RLHFRun",
        "metadata": {"name": "quickstart"},
        "spec": {
            "seed": seed,
            "iterations": size.iterations,
            **({"storage": {"url": store_url}} if store_url else {}),
            "policy": {"model": {"uri": uri("model")}, "dtype": "float32"},
            "sft": {
                "data": [{"name": "demonstrations", "uri": uri("demonstrations.parquet")}],
                "optimization": _optimization(2.0e-3, epochs=128 * size.sft_steps / size.demonstrations, warmup=0.05),
                "maxLength": MAX_PROMPT_LENGTH + MAX_NEW_TOKENS,
                "compute": two_ranks,
            },
            "reward": {
                "type": "BradleyTerry",
                "bradleyTerry": {
                    "train": {
                        "data": [{"name": "preferences", "uri": uri("preferences.parquet")}],
                        "optimization": _optimization(5.0e-4, epochs=2.0),
                        "maxLength": MAX_PROMPT_LENGTH + 2 * MAX_NEW_TOKENS,
                        "compute": two_ranks,
                    }
                },
            },
            "prompts": {
                "source": {"uri": uri("prompts.parquet")},
                "perIteration": size.prompts_per_iteration,
                "validation": {"size": size.validation},
                **({"test": {"size": size.test}} if size.test else {}),
            },
            "sample": {"maxNewTokens": MAX_NEW_TOKENS, "shards": size.sample_shards, "parallelism": size.sample_shards},
            "label": {"minYield": 0.1},
            "train": {
                "loss": {"type": "Sigmoid", "beta": 0.1, "nllWeight": 1.0},
                "data": {"replay": "All"},
                "optimization": _optimization(2.0e-4, epochs=1.0),
                "maxLength": MAX_PROMPT_LENGTH + MAX_NEW_TOKENS,
                "maxPromptLength": MAX_PROMPT_LENGTH,
                "compute": two_ranks,
            },
            "evaluate": {"judge": rule, "sampling": {"temperature": 1.0}},
            "selection": {"metric": "winRateVsInitial"},
            "retry": {"backoffSeconds": 1},
        },
    }


def _optimization(learning_rate: float, *, epochs: float, warmup: float = 0.03, batch: int = 128) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "learningRate": learning_rate,
        "warmupRatio": warmup,
        "globalBatchSize": batch,
        "gradientCheckpointing": False,
    }


def _fresh_prompts(count: int, rng: random.Random) -> Sequence[str]:
    return [task.make_prompt(rng) for _ in range(count)]


def _user(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _write(path: Path, columns: dict[str, list[Any]], types: dict[str, pa.DataType]) -> None:
    pq.write_table(pa.table(columns, schema=pa.schema(list(types.items()))), path)
