"""What a run takes from outside."""

from __future__ import annotations

from rlhf_api.stage import PromptIdentity
from rlhf_api.words import STATUS_FORMAT
from rlhf_operator.core.chain.references import PROMPT_IDENTITY, external_references, format_of, rule_references
from support.runs import spec_of


def test_every_reference_from_outside_is_listed_with_its_path() -> None:
    data = [{"name": "prefs", "uri": "hf://example/prefs"}]
    spec = spec_of(
        sft={"data": [{"name": "demos", "uri": "hf://example/demos"}]},
        reward={"type": "BradleyTerry", "bradleyTerry": {"train": {"base": {"uri": "hf://example/rm"}, "data": data}}},
        prompts={
            "source": {"uri": "hf://example/prompts-{iteration}"},
            "validation": {"source": {"uri": "hf://example/validation"}},
            "test": {"size": 5},
        },
        reference={"type": "Model", "model": {"uri": "hf://example/reference"}},
        evaluate={"judge": {"type": "Pairwise", "pairwise": {"model": {"uri": "hf://example/judge"}}}},
    )
    assert {reference.path: reference.target.uri for reference in external_references(spec)} == {
        "policy.model": "hf://example/base",
        "sft.data/demos": "hf://example/demos",
        "reward.bradleyTerry.train.base": "hf://example/rm",
        "reward.bradleyTerry.train.data/prefs": "hf://example/prefs",
        "evaluate.judge.pairwise.model": "hf://example/judge",
        "prompts.source/1": "hf://example/prompts-1",
        "prompts.source/2": "hf://example/prompts-2",
        "prompts.validation.source": "hf://example/validation",
        "reference.model": "hf://example/reference",
    }


def test_a_source_that_is_the_same_in_all_iterations_is_one_reference() -> None:
    assert [reference.path for reference in external_references(spec_of())] == ["policy.model", "prompts.source"]


def test_every_rule_is_listed_with_its_path_and_nothing_else_that_scores() -> None:
    listed = {reference.path: reference.entry_point for reference in rule_references(spec_of())}
    assert listed == {"reward.rule": "rules:score", "evaluate.judge.rule": "rules:judge"}
    model = {"type": "BradleyTerry", "bradleyTerry": {"model": {"uri": "hf://example/rm"}}}
    assert rule_references(spec_of(reward=model, evaluate={"judge": model})) == ()


def test_only_a_run_whose_prompts_have_tools_is_of_a_format_that_older_versions_leave_alone() -> None:
    formats = {identity: format_of({PROMPT_IDENTITY: identity}) for identity in PromptIdentity}
    assert formats.pop(PromptIdentity.RENDERED_WITH_TOOLS) == 2 <= STATUS_FORMAT
    assert set(formats.values()) == {None}
    assert format_of({}) is None
