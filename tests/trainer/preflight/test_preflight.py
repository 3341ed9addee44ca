"""preflight: everything that would stop the run later, in one message, before a GPU is asked for."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.storage import Storage
from rlhf_store import Unavailable
from rlhf_trainer.labelers.rule import RuleLabeler
from rlhf_trainer.preflight.lineage import independent_judge
from rlhf_trainer.runtime.errors import ConfigurationProblem, Transient
from support.preflights import knowing, problems, run, uri
from support.stages import spec_of_world


@pytest.fixture
def model(world: Path, tmp_path: Path) -> Path:
    """A copy of the world's model, to damage."""
    return shutil.copytree(world / "model", tmp_path / "model")


def test_a_sound_run_is_resolved_and_counted(world: Path, storage: Storage, tmp_path: Path) -> None:
    result = run(world, storage, tmp_path)
    assert result.counts == {"prompts/1": 24, "validation": 12, "test": 8}
    assert result.adoptable == 0
    assert result.resolved.pop("prompts.identity") == "Rendered"
    assert set(result.resolved) == {
        "policy.model",
        "sft.data/demonstrations",
        "reward.bradleyTerry.train.data/preferences",
        "prompts.source",
    }
    assert all(len(revision) == 40 for revision in result.resolved.values())


def test_every_problem_is_told_in_one_message(world: Path, storage: Storage, tmp_path: Path, model: Path) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    (model / "chat_template.jinja").unlink(missing_ok=True)
    rule = {"type": "Rule", "rule": {"entryPoint": "no_such_module:judge"}}
    told = problems(
        world,
        storage,
        tmp_path,
        policy={"model": uri(model), "dtype": "float32"},
        sft={"data": [{"name": "gone", **uri(tmp_path / "gone.parquet")}]},
        prompts={"source": {**uri(world / "prompts.parquet"), "column": "question"}},
        evaluate={"judge": rule},
    )
    assert "preflight found 4 problems" in told
    for said in ("gone.parquet does not exist", "no chat template", "no_such_module:judge", "no column 'question'"):
        assert told.count(said) == 1


def test_one_bad_part_hides_no_other(world: Path, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two labelers, two data sets of a kind, hold-outs of their own, a module that raises, and a bug of ours."""
    (tmp_path / "breaking.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def bug(*_: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("rlhf_trainer.preflight.data.lengths", bug)

    def lost(*names: str) -> list[dict[str, Any]]:
        return [{"name": name, **uri(tmp_path / f"{name}.parquet")} for name in names]

    training = {"data": lost("pairs-1", "pairs-2"), "base": uri(tmp_path / "base")}
    told = problems(
        world,
        storage,
        tmp_path,
        sft={"data": lost("sft-1", "sft-2")},
        reward={"type": "BradleyTerry", "bradleyTerry": {"train": training}},
        prompts={
            "source": uri(tmp_path / "prompts.parquet"),
            "validation": {"source": uri(tmp_path / "validation.parquet")},
            "test": {"source": {**uri(world / "prompts.parquet"), "column": "question"}},
        },
        evaluate={"judge": {"type": "Rule", "rule": {"entryPoint": "breaking:judge"}}},
    )
    missing = ("sft-1", "sft-2", "pairs-1", "pairs-2", "prompts", "validation")
    said = [f"{name}.parquet does not exist" for name in missing] + [
        "base is no model",
        "no column 'question'",
        "breaking:judge cannot be loaded: its module raises ZeroDivisionError when it is imported",
        "ZeroDivisionError: of ours. The log has the trace",
    ]
    assert "preflight found 10 problems" in told
    assert [told.count(text) for text in said] == [1] * 10


@pytest.fixture
def written_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A labeler by this line, in a module of its own."""
    (tmp_path / "rules").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "rules"))
    names: list[str] = []

    def write(line: str) -> dict[str, Any]:
        names.append(f"rule_{len(names)}")
        (tmp_path / "rules" / f"{names[-1]}.py").write_text(f"def score(messages, response):\n    {line}\n")
        return {"type": "Rule", "rule": {"entryPoint": f"{names[-1]}:score"}}

    yield write
    for name in names:
        sys.modules.pop(name, None)


WrittenRule = Callable[[str], dict[str, Any]]


def test_the_code_of_rules_is_resolved_and_what_it_scored_is_found_by_it_alone(
    world: Path, storage: Storage, tmp_path: Path, written_rule: WrittenRule
) -> None:
    reward, judge = written_rule("return float(len(response))"), written_rule("return 'sort' in response")
    resolved = run(world, storage, tmp_path, reward=reward, evaluate={"judge": judge}).resolved
    found = {path: revision for path, revision in resolved.items() if "rule" in path}
    assert found == {
        "reward.rule": RuleLabeler.load("rule_0:score").revision,
        "evaluate.judge.rule": RuleLabeler.load("rule_1:score").revision,
    }
    assert len(set(found.values())) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "return response[0] == 'a'",
            "rule_0:score raised IndexError: string index out of range (rule_0.py, line 2), for the response ''",
        ),
        ("return None if response else 0.0", "rule_0:score answered None for the response 'Yes.' to the prompt '"),
        ("return float('nan')", "rule_0:score answered nan for the response '' to the prompt '"),
        ("return 1.0 if len(messages) == 3 else ''", "rule_0:score answered '' for the response '' to the prompt '"),
    ],
)
def test_a_rule_that_does_not_answer_is_refused_with_what_it_was_asked(
    world: Path, storage: Storage, tmp_path: Path, written_rule: WrittenRule, line: str, said: str
) -> None:
    rule = written_rule(line)
    assert said in problems(world, storage, tmp_path, reward=rule)
    assert said.replace("rule_0", "rule_1") in problems(world, storage, tmp_path, evaluate={"judge": written_rule(line)})


def test_a_judge_is_tried_on_prompts_that_it_will_judge(
    world: Path, storage: Storage, tmp_path: Path, written_rule: WrittenRule
) -> None:
    """It need not know what the others are about, and a prompt of the test set counts like one of validation."""
    rows = [{"messages": [{"role": "user", "content": f"add: {number}"}]} for number in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "sums.parquet")
    world = knowing(world, tmp_path / "world", r"\badd\b|\d")
    prompts = {"source": uri(world / "prompts.parquet"), "validation": {"source": uri(tmp_path / "sums.parquet"), "size": 4}}
    judge = {"judge": written_rule("return float(messages[-1]['content'].startswith('add: ')) or 1 / 0")}
    run(world, storage, tmp_path, prompts=prompts, evaluate=judge)
    told = problems(world, storage, tmp_path, prompts={**prompts, "test": {"size": 4}}, evaluate=judge)
    assert "preflight found 1 problem:" in told
    assert "rule_0:score raised ZeroDivisionError" in told


def test_a_rule_that_cannot_be_asked_for_want_of_prompts_adds_no_problem(
    world: Path, storage: Storage, tmp_path: Path, written_rule: WrittenRule
) -> None:
    gone = {"source": uri(tmp_path / "gone.parquet")}
    rules = {"reward": written_rule("return 1.0"), "evaluate": {"judge": written_rule("return 2.0")}}
    told = problems(world, storage, tmp_path, prompts=gone, **rules)
    assert told.count("gone.parquet does not exist") == 1


def test_a_reward_models_base_is_looked_at(world: Path, storage: Storage, tmp_path: Path, model: Path) -> None:
    def of(base: Path) -> dict[str, Any]:
        data = [{"name": "preferences", **uri(world / "preferences.parquet")}]
        return {"type": "BradleyTerry", "bradleyTerry": {"train": {"base": uri(base), "data": data}}}

    assert "reward.bradleyTerry.train.base" in run(world, storage, tmp_path, reward=of(model)).resolved
    (model / "chat_template.jinja").unlink()
    policy = {"model": uri(world / "model"), "dtype": "float32", "chatTemplate": {"name": "ChatML"}}
    told = problems(world, storage, tmp_path, reward=of(model), policy=policy)
    assert "has no chat template" in told
    assert "another model must bring its own" in told
    for weights in model.glob("*.safetensors"):
        weights.unlink()
    assert "has no safetensors weights" in problems(world, storage, tmp_path, reward=of(model))


def test_a_store_that_is_away_says_nothing_about_the_manifest(
    world: Path, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise Unavailable("it does not answer", "s3://bucket")

    monkeypatch.setattr("rlhf_store.backends.files.FileStore.check_writable", away)
    with pytest.raises(Transient):
        run(world, storage, tmp_path)


def test_too_few_prompts_fail_only_where_an_iteration_has_none(world: Path, storage: Storage, tmp_path: Path) -> None:
    source = uri(world / "prompts.parquet")
    few = run(world, storage, tmp_path, prompts={"source": source, "perIteration": 1000, "validation": {"size": 4}})
    assert any("prompts.perIteration asks for 1000" in warning for warning in few.warnings)
    told = problems(
        world, storage, tmp_path, iterations=2, prompts={"source": source, "perIteration": 1000, "validation": {"size": 4}}
    )
    assert "Nothing is left of prompts.source for iteration 2" in told


def test_a_context_longer_than_the_models_positions_is_refused(world: Path, storage: Storage, tmp_path: Path) -> None:
    told = problems(world, storage, tmp_path, sample={"maxNewTokens": 60})
    assert "64 positions" in told


def test_a_reference_with_another_vocabulary_is_refused(world: Path, storage: Storage, tmp_path: Path, model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model))
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(str(model))
    told = problems(world, storage, tmp_path, reference={"type": "Model", "model": uri(model)})
    assert "another vocabulary" in told
    run(world, storage, tmp_path, reference={"type": "Model", "model": uri(world / "model")})


def test_defect_a_language_model_as_reward_is_refused_before_anything_runs(world: Path, storage: Storage, tmp_path: Path) -> None:
    told = problems(world, storage, tmp_path, reward={"type": "BradleyTerry", "bradleyTerry": {"model": uri(world / "model")}})
    assert "ForSequenceClassification" in told


def test_responses_longer_than_training_reads_are_warned_of(world: Path, storage: Storage, tmp_path: Path) -> None:
    """The reward would score text that DPO never sees."""
    result = run(world, storage, tmp_path, sample={"maxNewTokens": 20})
    assert any("Responses can be longer than training reads" in warning for warning in result.warnings)


def reward_model(folder: Path, world: Path, card: str | None) -> dict[str, Any]:
    """A folder that says what it is; preflight reads nothing else of it."""
    shutil.copytree(world / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]}))
    if card is not None:
        (folder / "README.md").write_text(card)
    return {"type": "BradleyTerry", "bradleyTerry": {"model": uri(folder)}}


@pytest.mark.parametrize("listed", [False, True])
def test_defect_a_judge_that_descends_from_the_training_reward_is_refused(
    world: Path, storage: Storage, tmp_path: Path, listed: bool
) -> None:
    """By lineage, not by name: ArmoRM is made from FsfairX."""
    reward = reward_model(tmp_path / "reward", world, None)
    base = f"file://{tmp_path}/reward"
    card = f"---\nbase_model:\n- {base}\n---\n# judge" if listed else f"---\nbase_model: {base}\n---\n# judge"
    judge = reward_model(tmp_path / "judge", world, card)
    spec = spec_of_world(world, reward=reward, evaluate={"judge": judge})
    warnings: list[str] = []
    with pytest.raises(ConfigurationProblem, match="descends from the training reward"):
        independent_judge(spec, tmp_path, storage, warnings)
    allowed = spec_of_world(world, reward=reward, evaluate={"judge": judge, "allowTrainingReward": True})
    independent_judge(allowed, tmp_path, storage, warnings)
    assert warnings == []


def test_a_shared_backbone_and_an_unknown_origin_are_warned_of(world: Path, storage: Storage, tmp_path: Path) -> None:
    card = "---\nbase_model: example/backbone\n---\n"
    reward, judge = (reward_model(tmp_path / name, world, card) for name in ("reward", "judge"))
    warnings: list[str] = []
    independent_judge(spec_of_world(world, reward=reward, evaluate={"judge": judge}), tmp_path, storage, warnings)
    assert len(warnings) == 1
    assert "share the backbone example/backbone" in warnings[0]
    unknown = reward_model(tmp_path / "unknown", world, "no front matter")
    warnings.clear()
    independent_judge(spec_of_world(world, reward=reward, evaluate={"judge": unknown}), tmp_path, storage, warnings)
    assert "is unknown" in warnings[0]
