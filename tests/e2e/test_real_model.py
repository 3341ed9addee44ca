"""An instruct model that people use, SmolLM2 with 135 million weights, through a whole run in English as a user starts it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from rlhf_api.resource.model import Dtype
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase
from rlhf_trainer.stages.train import GUARD_TOLERANCE
from support import smollm2
from support.mini import artifacts_of, stages_of, stop
from support.processes import PeakMemory
from support.rlhfctl import environment

#: Of the fixture: the run takes most of it.
pytestmark = [pytest.mark.engine, pytest.mark.real, pytest.mark.real_run, pytest.mark.timeout(1500)]
NAME = "smollm2"
END = "<|im_end|>"
#: They have answers that a model of this size knows, and ends.
CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Germany": "Berlin"}
ASKED = [
    "What is the capital of Spain? Answer in one word.",
    "What is the capital of Greece? Answer in one word.",
    "What is the capital of Egypt? Answer in one word.",
    "What is the opposite of hot? Answer in one word.",
    "What is the opposite of large? Answer in one word.",
    "What color is the sky? Answer with one word.",
    "What color is snow? Answer with one word.",
    "How many legs does a dog have? Answer with a number.",
    "How many days does a week have? Answer with a number.",
    "What is the first month of the year? Answer in one word.",
    "What do bees make? Answer in a few words.",
    "Where do fish live? Answer in three words.",
]
ENGLISH = re.compile(
    r"\b(?:a|an|and|are|as|at|by|for|have|i|in|is|it|no|not|of|on|one|or|that|the|this|to|with|yes|you)\b", re.IGNORECASE
)
#: The judge looks at something else than the reward.
RULES = """
def brevity(messages, response):
    return -float(len(response))


def closed(messages, response):
    return float(response.rstrip().endswith((".", "!", "?")))
"""
STEPS, PAIRS_PER_STEP = 2, 4


@dataclass(frozen=True)
class Run:
    folder: Path
    peak_memory: int

    @cached_property
    def status(self) -> RLHFRunStatus:
        return RLHFRunStatus.model_validate_json((self.folder / "state" / "runs" / NAME / "status.json").read_text())

    def files(self, stage: str, pattern: str) -> list[Path]:
        """`sample-1`: of what the stage has sealed."""
        return sorted((self.folder / "state" / "store" / artifacts_of(self.status)[stage]).rglob(pattern))

    def rows(self, stage: str) -> list[dict[str, Any]]:
        return [row for file in self.files(stage, "*.parquet") for row in pq.read_table(file).to_pylist()]


def manifest(folder: Path, model: Path) -> dict[str, Any]:
    def rule(name: str) -> dict[str, Any]:
        return {"type": "Rule", "rule": {"entryPoint": f"rules:{name}"}}

    def prompts(name: str) -> dict[str, Any]:
        return {"uri": f"file://{folder / name}", "column": "prompt"}

    optimization = {
        "epochs": 1,
        "maxSteps": STEPS,
        "globalBatchSize": PAIRS_PER_STEP,
        "learningRate": 1.0e-6,
        "gradientCheckpointing": False,
    }
    return {
        "apiVersion": "rlhf.dev/v1alpha1",
        "kind": "RLHFRun",
        "metadata": {"name": NAME},
        "spec": {
            "iterations": 1,
            "policy": {"model": {"uri": f"file://{model}"}, "dtype": "float32"},
            "reward": rule("brevity"),
            "prompts": {"source": prompts("asked.jsonl"), "validation": {"source": prompts("capitals.jsonl")}},
            "sample": {
                "completionsPerPrompt": 4,
                "maxNewTokens": 24,
                "mixture": [{"name": "mild", "iterate": {"type": "Latest"}, "temperature": 0.7}],
            },
            "train": {"optimization": optimization, "maxLength": 96, "maxPromptLength": 64},
            "evaluate": {"judge": rule("closed"), "sampling": {"temperature": 0}},
        },
    }


def capital_of(country: str) -> str:
    return f"What is the capital of {country}? Answer in one word."


def write_prompts(file: Path, prompts: list[str]) -> None:
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    model = smollm2.folder()
    folder = tmp_path_factory.mktemp(NAME)
    (folder / "rules.py").write_text(RULES)
    write_prompts(folder / "asked.jsonl", ASKED)
    write_prompts(folder / "capitals.jsonl", list(map(capital_of, CAPITALS)))
    (folder / "run.yaml").write_text(yaml.safe_dump(manifest(folder, model)))
    with (folder / "said.txt").open("w") as said:
        command = [sys.executable, "-m", "rlhfctl", "run", "--local", "--state", "state", "run.yaml"]
        # Threads that wait for each other awake take the cores of whatever else runs here: it took ten times as long.
        settings = environment(OMP_WAIT_POLICY="PASSIVE")
        process = subprocess.Popen(command, cwd=folder, env=settings, stdin=subprocess.DEVNULL, stdout=said, stderr=said, text=True)
        try:
            with PeakMemory(process.pid) as memory:
                code = process.wait(timeout=1400)
        finally:
            stop(process)
    assert code == 0, (folder / "said.txt").read_text()
    return Run(folder, memory.peak)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(smollm2.folder()))


def test_it_succeeds_with_one_attempt_a_stage(run: Run) -> None:
    assert run.status.phase is Phase.SUCCEEDED
    iteration = [f"{stage}-1" for stage in ("sample", "label", "reference", "train", "evaluate")]
    attempts = {name: stage.attempt for name, stage in stages_of(run.status).items()}
    assert attempts == dict.fromkeys(["preflight-0", "evaluate-0", *iteration, "finalize-0"], 1)


def test_a_prompt_is_asked_as_transformers_renders_it_with_the_systems_words_of_the_template(run: Run, tokenizer: Any) -> None:
    for row in run.rows("sample-1"):
        theirs = tokenizer.apply_chat_template(row["messages"], add_generation_prompt=True, tokenize=True, return_dict=False)
        assert row["prompt_ids"] == theirs
        assert tokenizer.decode(theirs).startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")


def test_answers_are_english_and_end_with_the_models_own_token(run: Run, tokenizer: Any) -> None:
    end = tokenizer.convert_tokens_to_ids(END)
    sampled = run.rows("sample-1")
    assert len(sampled) == 4 * len(ASKED)
    for row in sampled:
        ids = row["completion_ids"]
        assert (row["finish_reason"] == "stop") == (ids[-1] == end)
        assert end not in ids[:-1]
        assert "<|" not in row["text"]
    assert sum(row["finish_reason"] == "stop" for row in sampled) > len(sampled) / 2
    assert sum(ENGLISH.search(row["text"]) is not None for row in sampled) > 0.8 * len(sampled)


@pytest.mark.parametrize("stage", ["evaluate-0", "evaluate-1"])
def test_its_greedy_answers_are_right(run: Run, stage: str) -> None:
    answers = {row["messages"][-1]["content"]: row["text"] for row in run.rows(stage) if row["decoding"] == "sampled"}
    assert [city for (country, city) in CAPITALS.items() if city not in answers[capital_of(country)]] == [], answers


def test_the_sampler_and_the_trainer_agree_on_log_probs_as_the_guard_on_training_asks(run: Run) -> None:
    """The sampler's of pi_0, whatever the temperature, and those of the reference, which is pi_0, by the trainer's own forward."""
    sampled = {(row["prompt_id"], row["completion_index"]): row["logps"] for row in run.rows("sample-1")}
    pairs = run.rows("reference-1")
    assert len(pairs) >= STEPS * PAIRS_PER_STEP
    for pair in pairs:
        for side in ("chosen", "rejected"):
            logps = sampled[pair["prompt_id"], pair[f"{side}_index"]]
            assert len(logps) == pair[f"{side}_tokens"]
            assert abs(math.fsum(logps) - pair[f"{side}_logps"]) / len(logps) <= GUARD_TOLERANCE[Dtype.FLOAT32]


def test_two_steps_are_trained_from_log_two_on_and_move_the_policy(run: Run) -> None:
    [file] = run.files("train-1", "metrics.jsonl")
    first, second = [json.loads(line) for line in file.read_text().splitlines()]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert second["rewards/margins"] != 0.0
    assert all(math.isfinite(value) for step in (first, second) for value in step.values())


def test_its_processes_held_at_most_8_gb(run: Run) -> None:
    assert 0 < run.peak_memory <= 8 * 10**9
