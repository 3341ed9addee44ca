"""Tasks of lm-evaluation-harness whose data are files, a model for them, and what plain torch says of their answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .tiny_models import save_tiny_llama
from .vocabularies import LLAMA3, template, tokenizer

BOS = LLAMA3[0]
CHOICES = (("Paris", "the capital of"), ("0 1 2", "3 + 3"), ("user", "system = 1"))
#: What vLLM has kernels for on a CPU.
HEAD = 32
#: Of multiple choice; every third has another right answer than its neighbours.
QUESTIONS: list[dict[str, Any]] = [
    {"question": f"What is {number} + {number % 7}?", "choices": list(CHOICES[number % 3]), "answer": number % 2}
    for number in range(12)
]
#: In front of the questions, where a task shows examples.
SHOWN: dict[str, Any] = {"question": "What is the capital of France?", "choices": ["Paris", "France"], "answer": 0}


def save_model(folder: Path, *, adds_bos: bool = True, length: int = 512) -> Path:
    """A Llama with an opinion, and Llama 3's control tokens and template. adds_bos: as Llama's own tokenizer has it."""
    own = tokenizer(LLAMA3, template("llama3"), bos=BOS, eos=LLAMA3[4], adds_bos=adds_bos)
    save_tiny_llama(folder, vocabulary=len(own), seed=3, head_dim=HEAD)
    own.save_pretrained(str(folder))
    file = folder / "config.json"
    ends = {"bos_token_id": own.bos_token_id, "eos_token_id": own.eos_token_id}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": length, **ends}))
    (folder / "generation_config.json").write_text(json.dumps(ends))
    return folder


def write_task(folder: Path, name: str, rows: Sequence[dict[str, Any]], **config: Any) -> str:
    """A task file with its data beside it: the path as a manifest names it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"test": f"{name}.jsonl"}
    if "training_split" in config:
        (folder / "shown.jsonl").write_text(json.dumps(SHOWN) + "\n")
        files["train"] = "shown.jsonl"
    own = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**own, "metadata": {"version": 2.0}, **config}))
    return str(file)


def write_choices(folder: Path, name: str = "choices", rows: Sequence[dict[str, Any]] = QUESTIONS, **config: Any) -> str:
    """Multiple choice."""
    own = {
        "output_type": "multiple_choice",
        "training_split": "train",
        "fewshot_split": "train",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    return write_task(folder, name, rows, **{**own, **config})


def write_answers(folder: Path, rows: Sequence[dict[str, Any]], *, new: int = 6, name: str = "answers", **config: Any) -> str:
    """Free answers, compared letter by letter."""
    own = {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": new, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    columns = [{key: row[key] for key in ("question", "answer")} for row in rows]
    return write_task(folder, name, columns, **{**own, **config})


def summed_logp(model: Any, context: Sequence[int], continuation: Sequence[int]) -> float:
    """Nats of `continuation` behind `context`, one forward by itself."""
    import torch

    ids = [*context, *continuation]
    with torch.no_grad():
        logps = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
    return sum(float(logps[place - 1, ids[place]]) for place in range(len(context), len(ids)))


def greedy(model: Any, prompt: Sequence[int], new: int, stops: Sequence[int]) -> list[int]:
    """The likeliest ids behind `prompt`, without a cache; the one that stops is not among them."""
    import torch

    ids = list(prompt)
    for _ in range(new):
        with torch.no_grad():
            found = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if found in stops:
            break
        ids.append(found)
    return ids[len(prompt) :]
