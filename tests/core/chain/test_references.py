"""What a run takes from outside."""

from __future__ import annotations

from typing import Any

from rlhf_api.stage import PromptIdentity
from rlhf_api.words import STATUS_FORMAT
from rlhf_operator.core.chain.references import PROMPT_IDENTITY, external_references, format_of, rule_references, text_references
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


def test_what_a_trained_judge_is_made_from_is_listed_beside_that_of_the_reward() -> None:
    def trained(of: str) -> dict[str, Any]:
        data, held_out = ({"name": name, "uri": f"hf://{of}/{name}"} for name in ("prefs", "bench"))
        compute = {"deepspeed": {"config": {"name": of, "key": "zero.json"}}}
        training = {"base": {"uri": f"hf://{of}/base"}, "data": [data], "heldOut": {"data": held_out}, "compute": compute}
        return {"type": "BradleyTerry", "bradleyTerry": {"train": training}}

    spec = spec_of(reward=trained("reward"), evaluate={"judge": trained("judge")})
    listed = {reference.path: reference.target.uri for reference in external_references(spec)}
    texts = {reference.path: reference.key.name for reference in text_references(spec)}
    for path, of in (("reward", "reward"), ("evaluate.judge", "judge")):
        assert listed[f"{path}.bradleyTerry.train.base"] == f"hf://{of}/base"
        assert listed[f"{path}.bradleyTerry.train.data/prefs"] == f"hf://{of}/prefs"
        assert listed[f"{path}.bradleyTerry.train.heldOut.data"] == f"hf://{of}/bench"
        assert texts[f"{path}.bradleyTerry.train.compute.deepspeed.config"] == of


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
