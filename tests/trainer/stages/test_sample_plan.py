"""What sample asks of whom, before any engine is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.resource.data import HoldOut, Prompts, PromptSource
from rlhf_api.resource.model import Dtype, ModelRef
from rlhf_api.resource.sampling import MixtureEntry
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import ModelInput, PolicyInput, PromptSlice, Sampler, SampleWork
from rlhf_trainer.data.prompts import Prompt
from rlhf_trainer.models.sampling.engine import request_seed
from rlhf_trainer.models.vocabulary import load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.stages import sample
from support.stages import config_of, context_of


def policy(name: str, world: Path = Path("/models")) -> PolicyInput:
    return PolicyInput(model=ModelInput(source=ModelRef(uri=f"file://{world}/{name}")), dtype=Dtype.FLOAT32)


def work_of(
    *entries: tuple[MixtureEntry, PolicyInput], completions: int = 8, limit: int = 16, source: str = "file:///p"
) -> SampleWork:
    prompts = Prompts(source=PromptSource(uri=source), validation=HoldOut(size=0))
    return SampleWork(
        prompts=PromptSlice(iterations=1, iteration=1, prompts=prompts, max_prompt_length=limit),
        samplers=[Sampler(entry=entry, iterate=number, policy=of) for number, (entry, of) in enumerate(entries)],
        completions_per_prompt=completions,
        max_new_tokens=8,
        deterministic=False,
    )


def entry(name: str, **fields: Any) -> MixtureEntry:
    return MixtureEntry(name=name, **fields)


def test_entries_of_one_iterate_that_are_not_adjacent_share_one_engine() -> None:
    work = work_of((entry("a"), policy("x")), (entry("b"), policy("y")), (entry("c"), policy("x")), completions=7)
    entries = sample.entries_of(work)
    assert [(e.first, e.count) for e in entries] == [(0, 3), (3, 2), (5, 2)]
    groups = sample.by_policy(entries)
    assert [[e.sampler.entry.name for e in group] for group in groups] == [["a", "c"], ["b"]]


@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=6), st.integers(2, 12))
def test_every_completion_of_a_prompt_has_exactly_one_entry(weights: list[float], completions: int) -> None:
    work = work_of(
        *((entry(f"e{i}", weight=weight), policy(f"m{i % 2}")) for i, weight in enumerate(weights)), completions=completions
    )
    indices = [index for e in sample.entries_of(work) for index in range(e.first, e.first + e.count)]
    assert indices == list(range(completions))


def test_a_greedy_entry_with_several_completions_is_refused() -> None:
    with pytest.raises(ConfigurationProblem, match=r"entry cold is greedy .* 4 times"):
        sample.entries_of(work_of((entry("cold", temperature=0.0), policy("x")), (entry("hot"), policy("x"))))
    one = work_of((entry("cold", temperature=0.0, weight=1), policy("x")), (entry("hot", weight=7), policy("x")))
    assert [e.count for e in sample.entries_of(one)] == [1, 7]


def test_a_prompt_too_long_for_one_entry_is_left_out_of_all_and_counted_once(world: Path) -> None:
    own = policy("model", world)
    vocabulary = load_vocabulary(world / "model", None, [], trust_remote_code=False)
    prompts = [
        Prompt(text, ({"role": "user", "content": text},))
        for text in ("sort : moon", "sort : moon river lemon apple", "moon " * 30)
    ]
    hinted = entry("hinted", system_prompt="sort sort sort sort sort")
    work = work_of((entry("plain"), own), (hinted, own), limit=16)
    groups = sample.by_policy(sample.entries_of(work))
    (questions,), too_long = sample._questions(work, prompts, groups, [vocabulary])
    assert too_long == 2
    assert [(q.prompt.id, q.entry.sampler.entry.name) for q in questions] == [("sort : moon", "plain"), ("sort : moon", "hinted")]
    plain, with_hint = questions
    assert plain.prompt_ids == with_hint.prompt_ids == plain.asked_ids
    assert len(with_hint.asked_ids) > len(plain.asked_ids)


def test_when_no_prompt_is_short_enough_the_stage_says_how_long_they_may_be(world: Path, storage: Storage, tmp_path: Path) -> None:
    work = work_of((entry("hot"), policy("model", world)), limit=3, source=f"file://{world}/prompts.parquet")
    with pytest.raises(ConfigurationProblem, match=r"None of the \d+ prompts is short enough"):
        sample.run(context_of(config_of(work, storage), tmp_path))


def test_a_shard_without_prompts_is_no_error(world: Path, storage: Storage, tmp_path: Path) -> None:
    work = work_of((entry("hot"), policy("model", world)), limit=3, source=f"file://{world}/prompts.parquet")
    result = sample.run(context_of(config_of(work, storage, shards=500), tmp_path, shard=499))
    assert result.shard == 499


def test_seeds_do_not_collide_across_prompts_iterations_and_entries() -> None:
    seeds = {
        request_seed(seed, iteration, f"prompt {prompt}", name) + index
        for seed in (0, 1)
        for iteration in (1, 2)
        for prompt in range(200)
        for name in ("hot", "mild")
        for index in range(8)
    }
    assert len(seeds) == 2 * 2 * 200 * 2 * 8
    assert all(0 <= seed < 2**63 + 8 for seed in seeds)
