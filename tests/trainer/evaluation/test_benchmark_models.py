"""What a benchmark has a model read: BOS once in front of it, and whatever does not fit counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.model import Dtype
from rlhf_api.resource.sampling import Engine
from rlhf_trainer.evaluation import benchmark_models
from rlhf_trainer.evaluation.benchmark_models import Backend, close_model, open_model
from rlhf_trainer.evaluation.benchmarks import BenchmarkResult, run_benchmarks
from rlhf_trainer.models.loading import load_causal_lm
from rlhf_trainer.models.vocabulary import Vocabulary, load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.benchmark_tasks import BOS, QUESTIONS, SHOWN, save_model, summed_logp, write_answers, write_choices, write_task
from support.tiny_models import load
from support.vocabularies import GEMMA, template, tokenizer, vocabulary

pytestmark = pytest.mark.engine

Rows = list[list[int]]
#: What lm-eval fills rows up with behind, where it scores.
_PAD = 0


@pytest.fixture(scope="module", params=[True, False], ids=["the tokenizer adds BOS", "it adds none"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("reading") / "model", adds_bos=request.param)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Rows:
    """All rows of ids that the models of a benchmark are given, without padding."""
    rows: Rows = []
    real = load_causal_lm

    def load_and_listen(*arguments: Any, **options: Any) -> Any:
        model = real(*arguments, **options)

        def listen(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
            ids = args[0] if args else given["input_ids"]
            mask = given.get("attention_mask")
            for number, row in enumerate(ids.tolist()):
                held = mask[number, -len(row) :].tolist() if mask is not None else [1] * len(row)
                rows.append([token for token, is_read in zip(row, held, strict=True) if is_read])
                while mask is None and len(rows[-1]) > 1 and rows[-1][-1] == _PAD:
                    rows[-1].pop()

        model.register_forward_pre_hook(listen, with_kwargs=True)
        return model

    monkeypatch.setattr(benchmark_models, "load_causal_lm", load_and_listen)
    return rows


def run(folder: Path, *tasks: str, **options: Any) -> dict[str, BenchmarkResult]:
    return run_benchmarks(folder, tasks, backend="hf", dtype=Dtype.FLOAT32, seed=7, **options)


def of(folder: Path) -> Vocabulary:
    return load_vocabulary(folder, None, [], trust_remote_code=False)


def prompts(rows: Rows) -> Rows:
    """Without the single ids of an answer that is being written."""
    return [row for row in rows if len(row) > 1]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("shots", [0, 1])
def test_a_prompt_begins_with_one_bos(folder: Path, read: Rows, tmp_path: Path, chat: bool, shots: int) -> None:
    """https://github.com/lang-uk/ukrainian-llm-leaderboard/issues/5: of a template that writes it and a tokenizer that adds it."""
    own = of(folder)
    bos = own.tokenizer.bos_token_id
    adds = own.tokenizer("a")["input_ids"][0] == bos

    run(
        folder,
        write_choices(tmp_path),
        write_answers(tmp_path / "a", [{"question": "What?", "answer": "x"}], new=1),
        vocabulary=own if chat else None,
        shots=shots,
    )

    assert prompts(read)
    assert {row.count(bos) for row in prompts(read)} == {1 if chat or adds else 0}
    assert {row[0] == bos for row in prompts(read)} == {chat or adds}


def test_under_a_template_a_prompt_has_the_ids_that_training_has(folder: Path, read: Rows, tmp_path: Path) -> None:
    own = of(folder)

    run(folder, write_answers(tmp_path, [{"question": "What is 3 + 3?", "answer": "x"}], new=1), vocabulary=own)

    assert prompts(read) == [own.chat.prompt([{"role": "user", "content": "What is 3 + 3?"}])]


def test_rolling_windows_begin_with_one_bos(folder: Path, tmp_path: Path) -> None:
    """https://github.com/EleutherAI/lm-evaluation-harness/issues/3333: the text had one already, and its prediction counted."""
    own, texts = of(folder), [str(row["question"]) for row in QUESTIONS[:4]]
    rolling = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"}
    metric = [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}]
    model = load(folder)
    ids = [own.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    nats = sum(summed_logp(model, [own.tokenizer.bos_token_id], row) for row in ids)

    found = run(folder, write_task(tmp_path, "rolling", [{"text": text} for text in texts], metric_list=metric, **rolling))

    bits = -nats / sum(len(text.encode()) for text in texts) / 0.6931471805599453
    assert found["rolling"].metrics["bits_per_byte"].value == pytest.approx(bits, rel=1e-4)


def test_samples_that_do_not_fit_are_counted_and_keep_their_bos(folder: Path, read: Rows, tmp_path: Path) -> None:
    """https://github.com/EleutherAI/lm-evaluation-harness/issues/3115, /pull/2300: BOS was what went first."""
    encode = of(folder).tokenizer
    shown = f"{SHOWN['question']} {SHOWN['choices'][0]}\n\n"
    # lm-eval feeds all ids but the last.
    longest = [
        max(len(encode(f"{shown}{row['question']} {choice}")["input_ids"]) for choice in row["choices"]) - 1 for row in QUESTIONS
    ]
    room = sorted(longest)[6]

    found = run(folder, write_choices(tmp_path), max_length=room, shots=1)["choices"]

    assert found.truncated == sum(length > room for length in longest)
    assert 0 < found.truncated < len(QUESTIONS)
    assert max(map(len, read)) == room
    assert {row[0] for row in read} == {encode(shown)["input_ids"][0]} or BOS not in encode.decode(encode("a")["input_ids"])


def test_a_question_that_leaves_no_room_for_its_answer_is_counted_and_keeps_its_bos(
    folder: Path, read: Rows, tmp_path: Path
) -> None:
    encode = of(folder).tokenizer
    rows = [{"question": "What? " * length, "answer": "x"} for length in (1, 2, 20, 30)]
    fits = [len(encode(row["question"])["input_ids"]) <= 20 for row in rows]

    found = run(folder, write_answers(tmp_path, rows, new=4), max_length=24)["answers"]

    assert found.truncated == fits.count(False) == 2
    assert max(map(len, prompts(read))) >= 20
    adds = encode("a")["input_ids"][0] == encode.bos_token_id
    assert {row[0] == encode.bos_token_id for row in prompts(read)} == {adds}


def test_answers_that_leave_no_room_for_a_prompt_are_refused(folder: Path, tmp_path: Path) -> None:
    """https://github.com/EleutherAI/lm-evaluation-harness/pull/4001: the prompt was left empty."""
    task = write_answers(tmp_path, [{"question": "What?", "answer": "x"}], new=64)

    with pytest.raises(ConfigurationProblem, match=r"answers lets a model answer with 64 tokens, and the context has 32"):
        run(folder, task, max_length=32)


def test_a_choice_longer_than_the_context_is_refused(folder: Path, tmp_path: Path) -> None:
    task = write_choices(tmp_path, rows=[{"question": "What?", "choices": ["3 + " * 40, "x"], "answer": 0}])

    with pytest.raises(ConfigurationProblem, match=r"choices has an answer of \d+ tokens \(sample 0\)"):
        run(folder, task, max_length=32)


def test_a_prompt_that_writes_bos_twice_is_refused(folder: Path, tmp_path: Path) -> None:
    task = write_answers(tmp_path, [{"question": "What?", "answer": "x"}], doc_to_text=f"{BOS}{BOS}{{{{question}}}}")

    with pytest.raises(ConfigurationProblem, match="twice"):
        run(folder, task)


def test_a_description_that_no_template_has_a_role_for_stands_in_front_of_the_question() -> None:
    """lm-eval leaves it out, and says so in a log."""
    found = tokenizer(GEMMA, template("gemma"), bos="<bos>", eos="<eos>")
    reading = benchmark_models.Reading(found, vocabulary(found))

    text = reading.asked([{"role": "system", "content": "Answer."}, {"role": "user", "content": "What?"}], ask=True)

    assert text == "<bos><start_of_turn>user\nAnswer.\n\nWhat?<end_of_turn>\n<start_of_turn>model\n"


def test_an_answer_that_is_begun_goes_on() -> None:
    found = tokenizer(GEMMA, template("gemma"), bos="<bos>", eos="<eos>")
    reading = benchmark_models.Reading(found, vocabulary(found))

    text = reading.asked([{"role": "user", "content": "What?"}, {"role": "assistant", "content": "It is"}], ask=False)

    assert text.endswith("<start_of_turn>model\nIt is")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match="nothing"):
        open_model(tmp_path / "nothing", None, Backend.HF, Engine(), Dtype.FLOAT32, None, 0)


def _heard(model: Any) -> Rows:
    """All prompts that the engine is given from now on."""
    given: Rows = []
    generate = model.model.generate

    def listen(prompts: Any, *arguments: Any, **options: Any) -> Any:
        given.extend(list(prompt["prompt_token_ids"]) for prompt in prompts)
        return generate(prompts, *arguments, **options)

    model.model.generate = listen
    return given


def test_the_engine_reads_as_transformers_do(tmp_path: Path) -> None:
    """Log-likelihoods of both, and the ids that the engine is given: BOS once, also where a prompt is cut."""
    from lm_eval.api.instance import Instance

    folder = save_model(tmp_path / "model")
    bos = of(folder).tokenizer.bos_token_id
    asked = [(str(row["question"]), f" {choice}") for row in QUESTIONS[:4] for choice in row["choices"]]
    scored: dict[Backend, list[float]] = {}
    for backend in Backend:
        model = open_model(folder, None, backend, Engine(), Dtype.FLOAT32, 24, 0)
        pairs = [Instance("loglikelihood", {}, pair, 0, ("choices", number, 1)) for number, pair in enumerate(asked)]
        scored[backend] = [logp for logp, _ in model.loglikelihood(pairs)]
        assert not model.reading.cut
        if backend is Backend.VLLM:
            given = _heard(model)
            options = {"until": ["\n\n"], "max_gen_toks": 4}
            model.generate_until([Instance("generate_until", {}, ("What? " * n, options), 0, ("answers", n, 1)) for n in (1, 30)])
            assert [[row[0], row.count(bos)] for row in given] == [[bos, 1]] * 2
            assert sorted(map(len, given))[1] == 20
            assert model.reading.cut == {"answers": {30}}
        close_model(model)
    assert scored[Backend.VLLM] == pytest.approx(scored[Backend.HF], abs=1e-3)
