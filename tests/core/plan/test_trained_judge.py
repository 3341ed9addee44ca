"""A judge that the run trains: a stage of its own, before anything is evaluated."""

from __future__ import annotations

from typing import Any

from rlhf_api.resource.compute import Queue
from rlhf_api.stage import EvaluateWork, FinalizeWork, JudgeWork, LabelWork
from rlhf_api.words import StageName
from rlhf_operator.core.chain.history import History
from rlhf_operator.core.jobs.execution import execution, queue_of
from rlhf_operator.core.jobs.pods import pod_of
from rlhf_operator.core.plan.planner import Planner, RunStage
from support.runs import RUN, artifact_of, result_of, spec_of, walk

OPTIMIZATION = {"learningRate": 1e-4, "globalBatchSize": 8}
SFT = {"data": [{"name": "demos", "uri": "hf://example/demos"}], "optimization": OPTIMIZATION}


def trained(name: str, **training: object) -> dict[str, Any]:
    data = [{"name": name, "uri": f"hf://example/{name}"}]
    return {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": data, "optimization": OPTIMIZATION, **training}}}


REWARD, OF_JUDGE = trained("prefs"), trained("others")


def order(planner: Planner) -> list[str]:
    return [f"{config.stage}{config.iteration or ''}" for config in walk(planner)[0]]


def test_a_trained_judge_comes_before_pi_0_is_evaluated_and_without_a_trained_reward_too() -> None:
    tail = ["evaluate", "sample1", "label1", "reference1", "train1", "evaluate1", "finalize"]
    assert order(Planner(RUN, spec_of(sft=SFT, reward=REWARD, evaluate={"judge": OF_JUDGE}, iterations=1))) == [
        "preflight", "sft", "reward", "judge", *tail,
    ]  # fmt: skip
    assert order(Planner(RUN, spec_of(evaluate={"judge": OF_JUDGE}, iterations=1))) == ["preflight", "judge", *tail]


def test_evaluations_read_the_judge_that_was_trained_as_judge_and_the_reward_as_reward() -> None:
    """A trained labeler was the reward's for whoever asked."""
    configs, _ = walk(Planner(RUN, spec_of(sft=SFT, reward=REWARD, evaluate={"judge": OF_JUDGE})))
    by_stage = {config.stage: config for config in configs}
    reward, judge = by_stage[StageName.REWARD], by_stage[StageName.JUDGE]
    assert isinstance(judge.work, JudgeWork)
    assert judge.work.base.model.artifact == artifact_of(by_stage[StageName.SFT])
    assert [source.uri for source in judge.work.data] == ["hf://example/others"]
    assert artifact_of(judge) != artifact_of(reward)
    evaluations = [config.work for config in configs if isinstance(config.work, EvaluateWork)]
    assert len(evaluations) == 3
    for work in evaluations:
        assert work.judge_model is not None
        assert work.judge_model.artifact == artifact_of(judge)
        assert work.reward_model is not None
        assert work.reward_model.artifact == artifact_of(reward)
    labels = [config.work for config in configs if isinstance(config.work, LabelWork)]
    assert {work.reward_model and work.reward_model.artifact for work in labels} == {artifact_of(reward)}


def test_a_trained_judge_takes_revisions_of_its_own_paths() -> None:
    own = {"name": "bench", "uri": "hf://example/bench"}
    training = {"base": {"uri": "hf://example/other"}, "heldOut": {"data": own}}
    path = "evaluate.judge.bradleyTerry.train"
    resolved = {
        f"{path}.base": "b",
        f"{path}.data/others": "d",
        f"{path}.heldOut.data": "h",
        f"{path}.compute.deepspeed.config": "z",
    }
    # The reward's say nothing of it.
    resolved |= {key.replace(path, "reward.bradleyTerry.train"): "wrong" for key in resolved}
    spec = spec_of(reward=REWARD, evaluate={"judge": trained("others", **training)})
    [work] = [config.work for config in walk(Planner(RUN, spec, resolved))[0] if isinstance(config.work, JudgeWork)]
    assert work.base.model.source is not None
    assert work.base.model.source.revision == "b"
    assert [source.revision for source in work.data] == ["d"]
    assert work.held_out_pairs is not None
    assert work.held_out_pairs.data is not None
    assert work.held_out_pairs.data.revision == "h"
    assert work.deepspeed_revision == "z"


def test_a_judge_trained_as_the_reward_is_another_model() -> None:
    """Where that is allowed: their heads are of different seeds, and neither is taken for the other."""
    configs, _ = walk(Planner(RUN, spec_of(reward=REWARD, evaluate={"judge": REWARD, "allowTrainingReward": True})))
    reward, judge = (next(config for config in configs if config.stage is name) for name in (StageName.REWARD, StageName.JUDGE))
    assert reward.fingerprint != judge.fingerprint


def test_a_status_of_before_there_was_such_a_stage_goes_on_where_it_was() -> None:
    planner = Planner(RUN, spec_of(sft=SFT, reward=REWARD))
    history = History()
    for stage in (StageName.PREFLIGHT, StageName.SFT, StageName.REWARD, StageName.EVALUATE):
        step = planner.next_step(history)
        assert isinstance(step, RunStage)
        assert step.config.stage is stage
        history = history.with_result(step.config, result_of(step.config))
    step = planner.next_step(history)
    assert isinstance(step, RunStage)
    assert (step.config.iteration, step.config.stage) == (1, StageName.SAMPLE)


def test_the_checkpoints_of_a_trained_judge_go_and_the_judge_stays() -> None:
    storage = {"url": "s3://bucket/tiny", "retention": {"samples": "Delete", "checkpoints": "Delete"}}
    configs, _ = walk(Planner(RUN, spec_of(evaluate={"judge": OF_JUDGE}, storage=storage)))
    judge = artifact_of(next(config for config in configs if config.stage is StageName.JUDGE))
    end = configs[-1].work
    assert isinstance(end, FinalizeWork)
    assert judge in end.trained
    assert judge not in end.removed


def test_its_pods_ranks_and_queue_are_those_of_its_own_section() -> None:
    compute = {"nodes": 2, "processesPerNode": 2, "pod": {"nodeSelector": {"for": "judge"}}, "queue": {"name": "judges"}}
    optimization = {**OPTIMIZATION, "gradientCheckpointing": False}
    spec = spec_of(reward=REWARD, evaluate={"judge": trained("others", compute=compute, optimization=optimization)})
    own = execution(spec, StageName.JUDGE, 1, allow_cpu=False)
    assert (own.nodes, own.processes_per_node, own.gradient_checkpointing, own.token_budget) == (2, 2, False, None)
    assert pod_of(spec, StageName.JUDGE).node_selector == {"for": "judge"}
    assert queue_of(spec, StageName.JUDGE) == Queue(name="judges")
    of_reward = execution(spec, StageName.REWARD, 1, allow_cpu=False)
    assert (of_reward.nodes, of_reward.gradient_checkpointing) == (1, True)
    assert pod_of(spec, StageName.REWARD).node_selector is None
    assert queue_of(spec, StageName.REWARD) is None


def test_how_it_runs_is_in_no_evaluation() -> None:
    def fingerprints(compute: dict[str, Any]) -> list[str]:
        spec = spec_of(evaluate={"judge": trained("others", compute=compute)})
        return [config.fingerprint for config in walk(Planner(RUN, spec))[0] if config.stage is not StageName.PREFLIGHT]

    assert fingerprints({"processesPerNode": 4, "pod": {"nodeSelector": {"for": "judge"}}}) == fingerprints({})
