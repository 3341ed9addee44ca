"""A pairwise preference model that the run trains: its work, who reads it, and what it changes of others' work."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_api.resource.labeler import PairOrders, Pairwise
from rlhf_api.stage import EvaluateWork, JudgeWork, LabelWork, PreferenceModelWork, RewardWork
from rlhf_api.words import StageName
from rlhf_operator.core.jobs.execution import execution
from rlhf_operator.core.plan.planner import Planner
from support.runs import RUN, artifact_of, spec_of, walk

OPTIMIZATION = {"learningRate": 1e-4, "globalBatchSize": 8}


def trained(name: str, **training: object) -> dict[str, Any]:
    data = [{"name": name, "uri": f"hf://example/{name}"}]
    return {"type": "Pairwise", "pairwise": {"train": {"data": data, "optimization": OPTIMIZATION, **training}}}


def test_its_defaults_are_the_papers() -> None:
    spec = spec_of(reward={"type": "Pairwise", "pairwise": {"train": {"data": [{"name": "a", "uri": "hf://example/a"}]}}})
    [work] = [config.work for config in walk(Planner(RUN, spec))[0] if isinstance(config.work, RewardWork)]
    assert (work.optimization.learning_rate, work.optimization.global_batch_size, work.optimization.epochs) == (5e-6, 128, 1)
    assert (work.max_length, work.orders) == (3072, PairOrders.DRAWN)


@pytest.mark.parametrize(("path", "kind"), [("reward", RewardWork), ("evaluate.judge", JudgeWork)])
def test_it_takes_revisions_of_its_own_paths(path: str, kind: type[PreferenceModelWork]) -> None:
    own = {"name": "bench", "uri": "hf://example/bench"}
    labeler = trained("prefs", base={"uri": "hf://example/base"}, heldOut={"data": own}, orders="Both")
    spec = spec_of(reward=labeler) if path == "reward" else spec_of(evaluate={"judge": labeler})
    place = f"{path}.pairwise.train"
    resolved = {f"{place}.base": "b", f"{place}.data/prefs": "d", f"{place}.heldOut.data": "h"}
    resolved |= {key.replace("pairwise", "bradleyTerry"): "wrong" for key in resolved}
    [work] = [config.work for config in walk(Planner(RUN, spec, resolved))[0] if isinstance(config.work, kind)]
    assert work.base.model.source is not None
    assert work.base.model.source.revision == "b"
    assert [source.revision for source in work.data] == ["d"]
    assert work.held_out_pairs is not None
    assert work.held_out_pairs.data is not None
    assert work.held_out_pairs.data.revision == "h"
    assert work.orders is PairOrders.BOTH


def test_labels_and_evaluations_read_the_models_that_were_trained_for_them() -> None:
    spec = spec_of(reward=trained("prefs"), evaluate={"judge": trained("others")})
    configs, _ = walk(Planner(RUN, spec))
    by_stage = {config.stage: config for config in configs}
    reward, judge = artifact_of(by_stage[StageName.REWARD]), artifact_of(by_stage[StageName.JUDGE])
    label, evaluate = by_stage[StageName.LABEL].work, by_stage[StageName.EVALUATE].work
    assert isinstance(label, LabelWork)
    assert isinstance(evaluate, EvaluateWork)
    assert label.reward_model is not None
    assert label.reward_model.artifact == reward
    assert label.labeler.pairwise == Pairwise(), "how it was trained is in the artifact's fingerprint, and nowhere else"
    assert evaluate.judge_model is not None
    assert evaluate.judge_model.artifact == judge


def test_it_is_another_artifact_than_a_bradley_terry_model_of_the_same_data_and_in_either_order() -> None:
    def of_reward(labeler: dict[str, Any]) -> str:
        configs, _ = walk(Planner(RUN, spec_of(reward=labeler)))
        return next(config.fingerprint for config in configs if config.stage is StageName.REWARD)

    drawn, both = trained("prefs"), trained("prefs", orders="Both")
    scalar = {"type": "BradleyTerry", "bradleyTerry": drawn["pairwise"]}
    assert len({of_reward(drawn), of_reward(both), of_reward(scalar)}) == 3


@pytest.mark.parametrize("member", ["pairwise", "bradleyTerry"])
def test_it_is_trained_on_the_day_on_which_it_will_be_asked(member: str) -> None:
    """A template may write the date. As a labeler the model is read without the policy's, so it is trained without it."""
    kind = {"pairwise": "Pairwise", "bradleyTerry": "BradleyTerry"}[member]
    reward = {"type": kind, member: trained("prefs")["pairwise"]}
    policy = {"model": {"uri": "hf://example/policy"}, "chatTemplate": {"date": "2025-01-01"}}
    [work] = [
        config.work
        for config in walk(Planner(RUN, spec_of(reward=reward, policy=policy)))[0]
        if isinstance(config.work, RewardWork)
    ]
    assert work.base.chat_template is None
    inline = {**policy, "chatTemplate": {"date": "2025-01-01", "inline": "{{ x }}"}}
    [work] = [
        config.work
        for config in walk(Planner(RUN, spec_of(reward=reward, policy=inline)))[0]
        if isinstance(config.work, RewardWork)
    ]
    assert work.base.chat_template is not None
    assert (work.base.chat_template.inline, work.base.chat_template.date) == ("{{ x }}", None)


def test_how_it_runs_is_that_of_its_own_section() -> None:
    compute = {"nodes": 2, "processesPerNode": 2}
    optimization = {**OPTIMIZATION, "gradientCheckpointing": False}
    own = execution(spec_of(reward=trained("a", compute=compute, optimization=optimization)), StageName.REWARD, 1, allow_cpu=False)
    assert (own.nodes, own.processes_per_node, own.gradient_checkpointing) == (2, 2, False)
