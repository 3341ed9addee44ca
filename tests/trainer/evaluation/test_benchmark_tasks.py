"""What keeps a benchmark from being run is said in words, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml

from rlhf_api.metrics import BenchmarkMetric
from rlhf_api.resource.model import Dtype
from rlhf_trainer.evaluation.benchmarks import missing, run_benchmarks, tasks_revision
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.benchmark_tasks import QUESTIONS, write_answers, write_choices, write_task

_CODE = "def choices(doc):\n    return doc['choices']\n"


@pytest.fixture(autouse=True)
def without_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has of a data set is not there."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def with_function(folder: Path) -> str:
    task = write_choices(folder)
    (folder / "code.py").write_text(_CODE)
    file = Path(task)
    file.write_text(file.read_text().replace("'{{choices}}'", "!function code.choices"))
    return task


def test_tasks_that_can_be_run_miss_nothing(tmp_path: Path) -> None:
    answers = write_answers(tmp_path / "answers", [{"question": "What?", "answer": "x"}])

    assert missing([write_choices(tmp_path), answers]) == []


def test_data_that_are_not_here_are_named_with_what_to_do_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match=r"arc_easy \(allenai/ai2_arc, ARC-Easy\) are not on this machine.*HF_HOME"):
        run_benchmarks(tmp_path / "no model", ["arc_easy"], backend="hf", dtype=Dtype.FLOAT32, seed=0)
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_of_a_group_whose_data_are_not_here_the_first_is_named_and_the_others_counted() -> None:
    (said,) = missing(["mmlu_stem"])

    assert "cais/mmlu" in said
    assert "Of mmlu_stem, 18 more cannot be run either." in said


def test_an_unknown_task_is_named_with_the_nearest() -> None:
    (said,) = missing(["arc_easyy"])

    assert "no task arc_easyy; did you mean arc_easy" in said


def test_what_gates_read_is_among_what_the_tasks_measure(tmp_path: Path) -> None:
    answers = write_answers(tmp_path / "answers", [{"question": "What?", "answer": "x"}])
    tasks = [write_choices(tmp_path), answers]
    right = [BenchmarkMetric(task="choices", metric="acc"), BenchmarkMetric(task="answers", metric="exact_match")]
    assert tasks_revision(tasks, gated=right) == tasks_revision(tasks)
    wrong = [BenchmarkMetric(task="choises", metric="acc"), BenchmarkMetric(task="choices", metric="accuracy_of_answers")]
    with pytest.raises(ConfigurationProblem) as refused:
        tasks_revision(tasks, gated=wrong)
    assert "the benchmark choises, which evaluate.lmEval.tasks does not have; did you mean choices?" in str(refused.value)
    assert "choices, and that task measures no accuracy_of_answers; write acc." in str(refused.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    said = missing(["arc_easyy", "humaneval", write_choices(tmp_path), str(tmp_path / "none.yaml")])

    assert len(said) == 3


def _cut_short(folder: Path) -> str:
    file = folder / "short.yaml"
    file.write_text("task: short\ndoc_to_choice: [a,\nb: {\n")
    return str(file)


def _list(folder: Path) -> str:
    file = folder / "list.yaml"
    file.write_text("- task\n")
    return str(file)


def _nameless(folder: Path) -> str:
    file = folder / "nameless.yaml"
    file.write_text("dataset_path: json\n")
    return str(file)


def _taken(folder: Path) -> str:
    return write_choices(folder, "hellaswag")


def _including(folder: Path) -> str:
    with_function(folder)
    file = folder / "outer.yaml"
    file.write_text("include: choices.yaml\ntask: outer\n")
    return str(file)


def _without_data(folder: Path) -> str:
    task = write_choices(folder)
    (folder / "choices.jsonl").unlink()
    return task


def _fetching(folder: Path) -> str:
    return write_choices(folder, dataset_kwargs={"data_files": {"test": "https://example.org/choices.jsonl"}})


def _unsafe(folder: Path) -> str:
    return write_choices(folder, unsafe_code=True)


def _unknown_field(folder: Path) -> str:
    return write_choices(folder, doc_to_txt="{{question}}")


def _foreign_metric(folder: Path) -> str:
    return write_choices(folder, metric_list=[{"metric": "seqeval", "aggregation": "mean", "higher_is_better": True}])


def _torn(folder: Path) -> str:
    task = write_choices(folder)
    (folder / "choices.jsonl").write_text('{"question": ')
    return task


def _other_split(folder: Path) -> str:
    return write_choices(folder, test_split="validation")


def _wrong_template(folder: Path) -> str:
    return write_choices(folder, doc_to_text="{{question")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (_cut_short, "short.yaml is no YAML, line 4"),
        (_list, "list.yaml holds no mapping"),
        (_nameless, "says neither `task: NAME`"),
        (_taken, "calls its task hellaswag, as one of lm-evaluation-harness"),
        (with_function, "choices.yaml runs Python: !function code.choices"),
        (_including, "choices.yaml runs Python: !function code.choices"),
        (_without_data, "The data of benchmark choices (json) are not on this machine"),
        (_fetching, "names data at https://example.org/choices.jsonl, and no benchmark's data are fetched"),
        (_unsafe, "Benchmark choices runs code that the model writes"),
        (_unknown_field, "unexpected keyword argument 'doc_to_txt'"),
        (_foreign_metric, "metric seqeval"),
        (_other_split, "cannot make choices: there is no 'validation' among its splits and columns"),
        (_torn, "cannot make choices: "),
        (_wrong_template, "cannot make choices: TemplateSyntaxError"),
    ],
)
def test_a_task_file_that_cannot_be_run_says_why(tmp_path: Path, wrong: Callable[[Path], str], words: str) -> None:
    (said,) = missing([wrong(tmp_path)])

    assert words in said


def test_code_that_is_allowed_is_run(tmp_path: Path) -> None:
    assert missing([with_function(tmp_path)], trust_code=True) == []


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_a_task_that_runs_what_the_model_writes_is_refused(name: str) -> None:
    (said,) = missing([name], trust_code=True)

    assert said == f"Benchmark {name} runs code that the model writes, and no stage does that. Leave it out."


def test_a_task_that_needs_a_package_names_it() -> None:
    (said,) = missing(["minerva_math_algebra"])

    assert "needs a Python package that is not installed" in said
    assert "math_verify" in said


@pytest.mark.parametrize("name", ["flan_held_in", "lm_syneval"])
def test_a_group_whose_tasks_stand_in_it_is_looked_at_too(name: str) -> None:
    assert len(missing([name])) == 1


def test_a_group_with_a_task_that_runs_code_is_refused_by_the_name_of_the_task(tmp_path: Path) -> None:
    group = tmp_path / "group.yaml"
    group.write_text(yaml.safe_dump({"group": "all_of_mine", "task": [Path(write_choices(tmp_path)).name, "humaneval"]}))

    (said,) = missing([str(group)])

    assert "Benchmark humaneval runs code" in said


def test_a_task_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    task = write_choices(tmp_path)

    (said,) = missing([task, task])

    assert "more than one has the task choices" in said


def test_two_files_of_one_name_are_refused_together(tmp_path: Path) -> None:
    tasks = [write_choices(tmp_path / "one"), write_choices(tmp_path / "two", rows=QUESTIONS[1:])]

    with pytest.raises(ConfigurationProblem, match="more than one has the task choices"):
        run_benchmarks(tmp_path / "no model", tasks, backend="hf", dtype=Dtype.FLOAT32, seed=0)


def test_a_task_whose_samples_lack_a_column_is_told_by_its_name(tmp_path: Path) -> None:
    task = write_task(
        tmp_path,
        "short",
        [{"question": "What?"}],
        output_type="loglikelihood",
        doc_to_text="{{question}}",
        doc_to_target="{{answer}}",
    )

    (said,) = missing([task])

    assert "cannot make short" in said
