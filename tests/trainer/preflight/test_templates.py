"""What a chat template does to a run's data is known before a GPU is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from rlhf_api.resource.storage import Storage
from rlhf_trainer.quickstart.world import CHAT_TEMPLATE
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.conversations import gemma, user
from support.preflights import knowing, problems, run, uri

DATED = CHAT_TEMPLATE.replace("{{ bos_token }}", "{{ bos_token }}{{ strftime_now('%Y') }} ")
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT_TEMPLATE


def policy(world: Path, **template: Any) -> dict[str, Any]:
    return {"model": uri(world / "model"), "dtype": "float32", "chatTemplate": template}


def mixture(text: str) -> dict[str, Any]:
    entry = {"name": "careful", "temperature": 1.0, "systemPrompt": text}
    return {"maxNewTokens": 10, "completionsPerPrompt": 4, "mixture": [entry]}


def test_a_template_that_asks_for_the_date_is_told_one_and_preflight_says_which(
    world: Path, storage: Storage, tmp_path: Path
) -> None:
    world = knowing(world, tmp_path / "world", r"\d{4}")
    [warning] = run(world, storage, tmp_path / "a", policy=policy(world, inline=DATED)).warnings
    assert "asks for today's date; it is told 2024-07-26" in warning
    assert not run(world, storage, tmp_path / "b", policy=policy(world, inline=DATED, date="2026-11-30")).warnings


def test_a_template_without_the_tokenizers_bos_is_told(world: Path, storage: Storage, tmp_path: Path, model: Path) -> None:
    from tokenizers import Tokenizer, processors

    raw = Tokenizer.from_file(str(model / "tokenizer.json"))
    bos = next(token for token in ("<|bos|>", "<s>") if raw.token_to_id(token) is not None)
    raw.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))])
    raw.save(str(model / "tokenizer.json"))
    without = CHAT_TEMPLATE.removeprefix("{{ bos_token }}")
    changed = {"model": uri(model), "dtype": "float32", "chatTemplate": {"inline": without}}
    warnings = run(world, storage, tmp_path, policy=changed).warnings
    assert any("chat template does not write it: conversations have none" in warning for warning in warnings)


def test_a_judge_whose_tokenizer_adds_an_end_is_told(world: Path, storage: Storage, tmp_path: Path, reward: Path) -> None:
    from tokenizers import Tokenizer, processors

    judge = shutil.copytree(reward, tmp_path / "judge")
    raw = Tokenizer.from_file(str(judge / "tokenizer.json"))
    eos = "<pad>"
    raw.post_processor = processors.TemplateProcessing(single=f"$A {eos}", special_tokens=[(eos, raw.token_to_id(eos))])
    raw.save(str(judge / "tokenizer.json"))
    judged = {"judge": {"type": "BradleyTerry", "bradleyTerry": {"model": uri(judge)}}}
    warnings = run(world, storage, tmp_path / "run", evaluate=judged).warnings
    assert any(f"does not end with '{eos}', and its tokenizer adds one" in warning for warning in warnings)


def test_defect_a_system_prompt_that_the_template_refuses_is_known(world: Path, storage: Storage, tmp_path: Path) -> None:
    told = problems(world, storage, tmp_path, policy=policy(world, inline=NO_SYSTEM), sample=mixture("sort"))
    assert "with a systemPrompt of sample.mixture before it" in told
    assert "no system role" in told


def test_a_system_prompt_that_makes_every_prompt_too_long_is_known(world: Path, storage: Storage, tmp_path: Path) -> None:
    told = problems(world, storage, tmp_path, sample=mixture("sort " * 60))
    assert "All 24 prompts of iteration 1 are longer than train.maxPromptLength" in told
    assert "systemPrompt of sample.mixture" in told


def test_a_demonstration_that_the_template_leaves_without_end_is_known(world: Path, storage: Storage, tmp_path: Path) -> None:
    endless = policy(world, inline=CHAT_TEMPLATE.replace(" <|end|>", " "))
    assert "demonstrations.parquet: row 1: The chat template closes the last answer" in problems(
        world, storage, tmp_path, policy=endless
    )


def test_a_judge_that_cannot_read_the_prompts_is_known(world: Path, storage: Storage, tmp_path: Path, reward: Path) -> None:
    judge = shutil.copytree(reward, tmp_path / "judge")
    (judge / "chat_template.jinja").write_text("{{ raise_exception('nobody is heard') }}")
    told = problems(world, storage, tmp_path, evaluate={"judge": {"type": "BradleyTerry", "bradleyTerry": {"model": uri(judge)}}})
    assert "nobody is heard" in told


def test_a_column_of_templated_text_is_refused_before_the_policy_is_asked(world: Path, storage: Storage, tmp_path: Path) -> None:
    import pyarrow as pa

    file = tmp_path / "prompts.parquet"
    rows = pq.read_table(world / "prompts.parquet").num_rows
    pq.write_table(pa.table({"prompt": [f"<|im_start|>user\nsort {i}<|im_end|>\n" for i in range(rows)]}), file)
    told = problems(world, storage, tmp_path, prompts={"source": uri(file), "perIteration": 24, "validation": {"size": 12}})
    assert "is the output of a chat template" in told


@pytest.fixture
def model(world: Path, tmp_path: Path) -> Path:
    return shutil.copytree(world / "model", tmp_path / "model")


def test_every_prompt_is_read_as_the_judge_reads_it(tmp_path: Path) -> None:
    """Also the last of a thousand and one: sampled it would be, and not scored."""
    from rlhf_api.resource.model import ModelRef
    from rlhf_trainer.data.prompts import Prompt, PromptSets
    from rlhf_trainer.preflight.labelers import require_readable

    prompts = [Prompt(str(number), (user(f"What is {number}?"),), f"row {number}") for number in range(1000)]
    prompts.append(Prompt("last", ({"role": "system", "content": "Be kind."}, user("Why?")), "row 1001"))
    with pytest.raises(ConfigurationProblem, match="row 1001, as hf://a/judge reads it to score an answer: "):
        require_readable(ModelRef(uri="hf://a/judge"), gemma().chat, lambda: PromptSets((), (), (tuple(prompts),)))


def test_prompts_that_cannot_be_read_are_read_once(world: Path, storage: Storage, tmp_path: Path) -> None:
    """And told of once, though prompts, hold-outs and judge all ask for them."""
    broken = tmp_path / "prompts.jsonl"
    broken.write_text('{"prompt": null}\n' * 30)
    told = problems(world, storage, tmp_path / "run", prompts={"source": {**uri(broken), "column": "prompt"}})
    assert told.count("30 of 30 rows cannot be used") == 1


def test_test_prompts_that_are_all_too_long_are_refused(world: Path, storage: Storage, tmp_path: Path) -> None:
    held = tmp_path / "test.jsonl"
    held.write_text("".join(json.dumps({"prompt": "sort: " + "lion " * (200 + number)}) + "\n" for number in range(20)))
    own = {"source": {**uri(held), "column": "prompt"}}
    prompts = yaml.safe_load((world / "run.yaml").read_text())["spec"]["prompts"]
    told = problems(world, storage, tmp_path / "run", prompts={**prompts, "test": own})
    assert "prompts of test are longer than train.maxPromptLength" in told
