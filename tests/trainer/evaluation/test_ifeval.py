"""IFEval by lm-eval's own task: instructions that a program verifies, on rows of our own with the columns of google/IFEval."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lm_eval
import nltk
import pytest
from nltk.tokenize.punkt import PunktTrainer, save_punkt_params

from rlhf_api.metrics import BenchmarkMetric
from rlhf_api.resource.model import Dtype
from rlhf_trainer.evaluation.benchmark_tasks import load_tasks
from rlhf_trainer.evaluation.benchmarks import missing, run_benchmarks, tasks_revision
from support.benchmark_tasks import save_model, write_task

pytestmark = pytest.mark.engine

OWN = Path(lm_eval.__file__).parent / "tasks" / "ifeval" / "ifeval.yaml"
ROWS: list[dict[str, Any]] = [
    {
        "key": 1,
        "prompt": "Describe a lake without any commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{"num_sentences": None, "relation": None, "language": None}],
    },
    {
        "key": 2,
        "prompt": "Tell me about bread in at least two sentences and in English.",
        "instruction_id_list": ["length_constraints:number_sentences", "language:response_language"],
        "kwargs": [
            {"num_sentences": 2, "relation": "at least", "language": None},
            {"num_sentences": None, "relation": None, "language": "en"},
        ],
    },
]


@pytest.fixture(autouse=True)
def without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has of NLTK's data is not there."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])


@pytest.fixture
def punkt(tmp_path: Path) -> None:
    """punkt_tab for English, made here of two sentences."""
    folder = tmp_path / "nltk" / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    trainer = PunktTrainer()
    trainer.train("Bread is baked. Lakes are deep.", finalize=True)
    save_punkt_params(trainer.get_params(), dir=str(folder))


def task(folder: Path) -> str:
    return write_task(folder, "instructions", ROWS, include=str(OWN), dataset_name=None)


def test_without_nltks_data_preflight_says_what_to_fetch_and_fetches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if "tasks.ifeval" in name]:
        monkeypatch.delitem(sys.modules, name)
    (said,) = missing([task(tmp_path)])
    assert "needs NLTK's data punkt_tab, which are not on this machine, and no stage fetches them" in said
    assert "python -m nltk.downloader -d FOLDER punkt_tab" in said
    assert not (tmp_path / "nltk").exists()


@pytest.mark.usefixtures("punkt")
def test_gates_know_its_metrics(tmp_path: Path) -> None:
    gated = [BenchmarkMetric(task="instructions", metric="prompt_level_strict_acc")]
    assert len(tasks_revision([task(tmp_path)], gated=gated)) == 64


@pytest.mark.usefixtures("punkt")
@pytest.mark.parametrize(
    ("row", "answer", "strict", "loose"),
    [
        (0, "A lake is a body of water.", [True], [True]),
        (0, "A lake, as I said, is deep.", [False], [False]),
        (0, "Sure, here it is:\nA lake is deep and still.", [False], [True]),
        (1, "Bread is baked in an oven. It is eaten with butter in the morning.", [True, True], [True, True]),
        (1, "Bread is baked in an oven and eaten with butter in the morning", [False, True], [False, True]),
    ],
)
def test_answers_are_verified_strictly_and_loosely(
    tmp_path: Path, row: int, answer: str, strict: list[bool], loose: list[bool]
) -> None:
    [loaded] = load_tasks([task(tmp_path)], trust_code=False)["tasks"].values()
    found = loaded.process_results(loaded.test_docs()[row], [answer])
    assert (found["inst_level_strict_acc"], found["inst_level_loose_acc"]) == (strict, loose)
    assert (found["prompt_level_strict_acc"], found["prompt_level_loose_acc"]) == (all(strict), all(loose))


@pytest.mark.usefixtures("punkt")
def test_a_model_is_measured_and_a_text_has_one_language(tmp_path: Path) -> None:
    """Of a text as short as this one langdetect says three languages, unless it is seeded (lm-eval's issue 4213)."""
    folder = save_model(tmp_path / "model", length=2048)
    results = run_benchmarks(folder, [task(tmp_path / "task")], backend="hf", dtype=Dtype.FLOAT32, seed=0, limit=1, max_length=2048)
    assert set(results["instructions"].metrics) == {
        "prompt_level_strict_acc",
        "inst_level_strict_acc",
        "prompt_level_loose_acc",
        "inst_level_loose_acc",
    }
    import langdetect

    assert len({langdetect.detect("Hello world") for _ in range(60)}) == 1
