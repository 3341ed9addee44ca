"""Benchmarks by lm-evaluation-harness: its values are what plain torch says of the same questions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf_api.resource.model import Dtype
from rlhf_trainer.evaluation.benchmarks import BenchmarkResult, run_benchmarks, values
from rlhf_trainer.models.vocabulary import Vocabulary, load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.benchmark_tasks import QUESTIONS, SHOWN, greedy, save_model, summed_logp, write_answers, write_choices
from support.tiny_models import load

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("benchmarks") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load(folder)


@pytest.fixture(scope="module")
def vocabulary(folder: Path) -> Vocabulary:
    return load_vocabulary(folder, None, [], trust_remote_code=False)


def run(folder: Path, *tasks: str, backend: str = "hf", **options: Any) -> dict[str, BenchmarkResult]:
    return run_benchmarks(folder, tasks, backend=backend, dtype=Dtype.FLOAT32, seed=7, **options)


def chosen(model: Any, vocabulary: Vocabulary, context: str, choices: Sequence[str]) -> int:
    """The likeliest choice behind a text, BOS in front of it."""
    encode = vocabulary.tokenizer
    ids = encode(context)["input_ids"]
    assert ids[0] == encode.bos_token_id
    sums = [summed_logp(model, ids, encode(f"{context} {choice}")["input_ids"][len(ids) :]) for choice in choices]
    return sums.index(max(sums))


def answered(model: Any, vocabulary: Vocabulary, questions: Sequence[str], *, new: int, chat: bool) -> list[str]:
    found = []
    for question in questions:
        ids = (
            vocabulary.chat.prompt([{"role": "user", "content": question}]) if chat else vocabulary.tokenizer(question)["input_ids"]
        )
        text = vocabulary.tokenizer.decode(greedy(model, ids, new, sorted(vocabulary.stop_ids)), skip_special_tokens=True)
        found.append(text.split("\n\n")[0])
    return found


@pytest.mark.parametrize("shots", [0, 1])
def test_accuracy_of_multiple_choice_is_what_torch_alone_says(
    folder: Path, model: Any, vocabulary: Vocabulary, tmp_path: Path, shots: int
) -> None:
    shown = f"{SHOWN['question']} {SHOWN['choices'][SHOWN['answer']]}\n\n" if shots else ""
    right = [chosen(model, vocabulary, shown + row["question"], row["choices"]) == row["answer"] for row in QUESTIONS]
    share = sum(right) / len(right)

    found = run(folder, write_choices(tmp_path), shots=shots)["choices"]

    assert 0 < share < 1
    accuracy = found.metrics["acc"]
    assert accuracy.value == pytest.approx(share)
    assert accuracy.stderr == pytest.approx(math.sqrt(share * (1 - share) / (len(right) - 1)))
    assert accuracy.higher_is_better is True
    assert (found.samples, found.of_samples, found.truncated, found.shots, found.version) == (12, 12, 0, shots, "2.0")


@pytest.mark.parametrize("chat", [False, True])
def test_the_share_of_exact_answers_is_what_torch_alone_says(
    folder: Path, model: Any, vocabulary: Vocabulary, tmp_path: Path, chat: bool
) -> None:
    questions = [row["question"] for row in QUESTIONS]
    expected = answered(model, vocabulary, questions, new=6, chat=chat)
    rows = [
        {"question": question, "answer": text if number % 3 else f"{text}!"}
        for number, (question, text) in enumerate(zip(questions, expected, strict=True))
    ]

    found = run(folder, write_answers(tmp_path, rows), vocabulary=vocabulary if chat else None)

    assert values(found) == {"answers": {"exact_match": pytest.approx(8 / 12)}}


@pytest.mark.parametrize("backend", ["hf", "vllm"])
def test_an_answer_ends_where_the_policy_s_answers_end(
    folder: Path, model: Any, vocabulary: Vocabulary, tmp_path: Path, backend: str
) -> None:
    prompt = vocabulary.chat.prompt([{"role": "user", "content": "What?"}])
    ids = greedy(model, prompt, 6, [])
    stop = next(token for token in ids[1:] if token != ids[0])
    until = Vocabulary(vocabulary.tokenizer, frozenset({stop}), vocabulary.chat)
    said = vocabulary.tokenizer.decode(ids[: ids.index(stop)], skip_special_tokens=True)

    task = write_answers(tmp_path, [{"question": "What?", "answer": said}])
    found = run(folder, task, vocabulary=until, backend=backend, max_length=128)

    assert values(found) == {"answers": {"exact_match": 1.0}}


def test_under_a_template_a_choice_follows_its_header_without_a_blank(
    folder: Path, model: Any, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    """https://github.com/EleutherAI/lm-evaluation-harness/issues/2346"""
    right = []
    for row in QUESTIONS:
        ids = vocabulary.chat.prompt([{"role": "user", "content": row["question"]}])
        own = [
            summed_logp(model, ids, vocabulary.tokenizer(choice, add_special_tokens=False)["input_ids"])
            for choice in row["choices"]
        ]
        right.append(own.index(max(own)) == row["answer"])

    found = run(folder, write_choices(tmp_path), vocabulary=vocabulary)

    assert found["choices"].metrics["acc"].value == pytest.approx(sum(right) / len(right))


def test_a_limit_takes_the_first_samples_alone(folder: Path, model: Any, vocabulary: Vocabulary, tmp_path: Path) -> None:
    first = [chosen(model, vocabulary, row["question"], row["choices"]) == row["answer"] for row in QUESTIONS[:5]]

    found = run(folder, write_choices(tmp_path), limit=5)["choices"]

    assert (found.samples, found.of_samples) == (5, 12)
    assert found.metrics["acc"].value == pytest.approx(sum(first) / 5)


def test_a_limit_that_leaves_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match="at least 1"):
        run(folder, write_choices(tmp_path), limit=0)


def test_a_group_has_its_members_and_their_mean_by_size(folder: Path, tmp_path: Path) -> None:
    write_choices(tmp_path, "small", QUESTIONS[:4])
    write_choices(tmp_path, "large", QUESTIONS[4:])
    group = tmp_path / "both.yaml"
    mean = {"metric": "acc", "aggregation": "mean", "weight_by_size": True}
    group.write_text(yaml.safe_dump({"group": "both", "task": ["small.yaml", "large.yaml"], "aggregate_metric_list": [mean]}))

    found = run(folder, str(group))

    assert list(found) == ["both", "small", "large"]
    both, small, large = found.values()
    assert both.members == ("small", "large")
    assert (both.samples, small.samples, large.samples) == (12, 4, 8)
    assert both.metrics["acc"].value == pytest.approx((4 * small.metrics["acc"].value + 8 * large.metrics["acc"].value) / 12)


def test_a_configuration_is_the_same_wherever_it_lies_and_another_with_other_data(folder: Path, tmp_path: Path) -> None:
    here, there = write_choices(tmp_path / "here"), write_choices(tmp_path / "there")
    other = write_choices(tmp_path / "other", rows=QUESTIONS[1:])

    one, same, another = (run(folder, task, limit=1)["choices"].configuration for task in (here, there, other))
    shown = run(folder, here, limit=1, shots=1)["choices"].configuration

    assert one == same
    assert len({one, another, shown}) == 3


def test_a_filter_that_is_not_the_default_is_named(folder: Path, tmp_path: Path) -> None:
    filters = [{"name": "first-word", "filter": [{"function": "regex", "regex_pattern": "(\\w+)"}, {"function": "take_first"}]}]
    task = write_answers(tmp_path, [{"question": "What?", "answer": "x"}], filter_list=filters)

    assert list(run(folder, task)["answers"].metrics) == ["exact_match/first-word"]


def test_penalties_that_lie_beside_a_model_change_no_answer(model: Any, vocabulary: Vocabulary, tmp_path: Path) -> None:
    punished = save_model(tmp_path / "model")
    file = punished / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"repetition_penalty": 1.9}))
    (expected,) = answered(model, vocabulary, ["What? What?"], new=12, chat=False)

    found = run(punished, write_answers(tmp_path, [{"question": "What? What?", "answer": expected}], new=12))

    assert values(found) == {"answers": {"exact_match": 1.0}}


def test_nothing_is_printed(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(folder, write_choices(tmp_path), max_length=16, shots=1)

    assert capfd.readouterr() == ("", "")


def test_the_engine_says_what_torch_alone_says(folder: Path, model: Any, vocabulary: Vocabulary, tmp_path: Path) -> None:
    right = [chosen(model, vocabulary, row["question"], row["choices"]) == row["answer"] for row in QUESTIONS]
    encode, rows = vocabulary.tokenizer, []
    for row in QUESTIONS:
        ids = greedy(model, encode(row["question"])["input_ids"], 6, sorted(vocabulary.stop_ids))
        # At an end the engine keeps back what may be the beginning of a letter, and such is half of what this model says.
        text = encode.decode(ids).split("\n\n")[0].rstrip("\ufffd")
        rows.append({"question": row["question"], "answer": re.sub(r"<\|\w+\|>", "", text)})

    found = run(folder, write_choices(tmp_path), write_answers(tmp_path, rows), backend="vllm", max_length=128)

    assert values(found) == {"choices": {"acc": pytest.approx(sum(right) / 12)}, "answers": {"exact_match": 1.0}}
    assert [result.truncated for result in found.values()] == [0, 0]
