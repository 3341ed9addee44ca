"""The whole quickstart, once, as a user runs it, with its store on a real S3 server; then many looks at what came out."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.metrics import Metric
from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase
from rlhf_store import Store, open_store
from support.mini import NAME, Case, artifacts_of, downloaded, make_world, stages_of, stop, tokens_of
from support.processes import PeakMemory
from support.rlhfctl import Done, environment, rlhfctl
from support.s3 import S3Server

#: Of the fixture: the run takes most of it.
pytestmark = [pytest.mark.engine, pytest.mark.s3, pytest.mark.timeout(1500)]
ITERATIONS = (1, 2, 3)
STAGES = ("sample", "label", "reference", "train", "evaluate")
GIGABYTE = 10**9
COLUMNS = {
    "samples": (
        "prompt_id prompt_ids messages completion_index completion_ids text logps finish_reason iterate temperature template_hash"
    ),
    "labels": (
        "prompt_id chosen_index rejected_index chosen_ids rejected_ids prompt_ids chosen_score rejected_score scores iteration"
    ),
    "reference-logps": "prompt_id chosen_index rejected_index chosen_logps rejected_logps chosen_tokens rejected_tokens",
}


@dataclass(frozen=True)
class Quickstart:
    case: Case
    done: Done
    peak_memory: int

    @property
    def status(self) -> RLHFRunStatus:
        return self.case.status()

    @property
    def store(self) -> Store:
        return open_store(self.case.storage)

    def fetch(self, prefix: str, target: Path) -> Path:
        return downloaded(self.store, prefix, target)


@pytest.fixture(scope="module")
def quickstart(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    folder = tmp_path_factory.mktemp("quickstart")
    storage = s3_server.storage(prefix="quickstart")
    case = Case(folder, make_world(folder / "state" / NAME, size="full", storage=storage), s3_server, storage)
    process = case.start()
    try:
        with PeakMemory(process.pid) as memory:
            done = case.ended(process, seconds=1400)
    finally:
        stop(process)
    assert done.code == 0, done.out
    return Quickstart(case, done, memory.peak)


def test_it_succeeds_and_says_what_came_out(quickstart: Quickstart) -> None:
    assert "quickstart has succeeded" in quickstart.done.err
    for word in ("best iterate", "checkpoint", "report", "logs"):
        assert word in quickstart.done.err


def test_its_status_has_every_iteration_with_metrics_and_the_best_one(quickstart: Quickstart) -> None:
    done = rlhfctl("status", NAME, "--state", str(quickstart.case.state), "-o", "json")
    assert done.code == 0, done.err
    run = RLHFRun.model_validate(json.loads(done.out))
    status = run.status
    assert status is not None
    assert status.phase is Phase.SUCCEEDED
    assert [iteration.number for iteration in status.iterations] == list(ITERATIONS)
    for iteration in status.iterations:
        assert {Metric.WIN_RATE_VS_INITIAL, Metric.JUDGE_MEAN, Metric.KL_TO_INITIAL, Metric.TRAIN_LOSS} <= set(iteration.metrics)
        assert [stage.name for stage in iteration.stages] == list(STAGES)
    assert status.best_iteration in (0, *ITERATIONS)
    assert status.checkpoint is not None
    assert status.checkpoint.url.startswith(f"{quickstart.case.storage.url}/policy/")


def test_the_best_iterate_is_judged_no_worse_than_the_first(quickstart: Quickstart) -> None:
    """More is shown by benchmarks/quickstart_seeds.py, over seeds and test prompts."""
    status = quickstart.status
    means = {0: stages_of(status)["evaluate-0"].metrics[Metric.JUDGE_MEAN].value}
    means |= {iteration.number: iteration.metrics[Metric.JUDGE_MEAN].value for iteration in status.iterations}
    assert status.best_iteration is not None
    assert means[status.best_iteration] >= means[0]


def test_each_stage_needed_one_attempt(quickstart: Quickstart) -> None:
    attempts = {name: stage.attempt for name, stage in stages_of(quickstart.status).items()}
    of_iterations = [f"{stage}-{number}" for number in ITERATIONS for stage in STAGES]
    assert attempts == dict.fromkeys(["preflight-0", "sft-0", "reward-0", "evaluate-0", *of_iterations, "finalize-0"], 1)


def test_each_manifest_was_written_exactly_once(quickstart: Quickstart) -> None:
    manifests = quickstart.case.manifests()
    tokens = tokens_of(manifests)
    assert sorted(manifests) == sorted([*artifacts_of(quickstart.status).values(), *tokens])
    assert len(tokens) == len(("sft", "reward"))
    assert len(set(manifests)) == len(manifests) == len(tokens) + 3 + len(ITERATIONS) * len(STAGES)


def test_its_processes_held_at_most_8_gb(quickstart: Quickstart) -> None:
    assert 0 < quickstart.peak_memory <= 8 * GIGABYTE


@pytest.fixture(scope="module")
def checkpoint(quickstart: Quickstart, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """status.checkpoint.url, copied."""
    found = quickstart.status.checkpoint
    assert found is not None
    prefix = found.url.removeprefix(f"{quickstart.case.storage.url}/")
    return quickstart.fetch(prefix, tmp_path_factory.mktemp("checkpoint"))


def test_transformers_loads_the_checkpoint(checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert tokenizer.chat_template


GENERATE = """
import json, sys
from vllm import LLM, SamplingParams
llm = LLM(sys.argv[1], max_model_len=32, enforce_eager=True)
messages = [{"role": "user", "content": "sort: tiger apple moon"}]
answer = llm.chat(messages, SamplingParams(max_tokens=8, temperature=0), use_tqdm=False)[0].outputs[0]
print(json.dumps({"text": answer.text, "reason": answer.finish_reason}))
"""


def test_vllm_generates_from_the_checkpoint(checkpoint: Path) -> None:
    settings = environment(VLLM_CPU_KVCACHE_SPACE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", TORCHDYNAMO_DISABLE="1")
    done = subprocess.run(
        [sys.executable, "-c", GENERATE, str(checkpoint)], env=settings, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert answer["reason"] == "stop"
    assert answer["text"].strip()


@pytest.mark.parametrize("kind", list(COLUMNS))
@pytest.mark.parametrize("number", ITERATIONS)
def test_datasets_opens_the_data_with_exactly_the_frozen_columns(
    quickstart: Quickstart, kind: str, number: int, tmp_path: Path
) -> None:
    from datasets import load_dataset

    stage = {"samples": "sample", "labels": "label", "reference-logps": "reference"}[kind]
    folder = quickstart.fetch(artifacts_of(quickstart.status)[f"{stage}-{number}"], tmp_path / "data")
    files = [str(path) for path in folder.rglob("*.parquet")]
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == COLUMNS[kind].split()
    assert len(rows) == 16000 if kind == "samples" else len(rows) > 0


def test_the_report_shows_each_iterate(quickstart: Quickstart) -> None:
    page = (quickstart.case.state / "runs" / NAME / "report.html").read_text()
    for number in (0, *ITERATIONS):
        assert f"π{number}" in page


def test_the_same_command_finds_it_done(quickstart: Quickstart) -> None:
    before = quickstart.case.server.requests(quickstart.case.storage)
    done = quickstart.case.run()
    assert done.code == 0, done.out
    after = quickstart.case.server.requests(quickstart.case.storage)
    assert {request.operation for request in after[len(before) :]} <= {"GetObject", "HeadObject", "ListObjectsV2"}


def test_without_its_state_every_stage_is_found_in_the_store_and_nothing_is_computed(quickstart: Quickstart) -> None:
    case = quickstart.case
    before = case.manifests()
    forgetful = Case(case.folder / "forgetful", case.manifest, case.server, case.storage)
    forgetful.folder.mkdir()
    done = forgetful.run()
    assert done.code == 0, done.out
    status = forgetful.status()
    assert artifacts_of(status) == artifacts_of(quickstart.status)
    assert all(stage.adopted for stage in stages_of(status).values() if stage.artifact is not None)
    assert status.checkpoint == quickstart.status.checkpoint
    assert case.manifests() == before
