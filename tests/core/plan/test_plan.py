"""The chain of a run: which stages, in which order, with which inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.stage import (
    ArtifactRef,
    EvaluateWork,
    FinalizeWork,
    LabelWork,
    PolicyInput,
    ResolveWork,
    RewardWork,
    SampleWork,
    TrainWork,
)
from rlhf_api.words import Reason, StageName
from rlhf_operator.core.chain.history import History, StageRecord, history_of
from rlhf_operator.core.chain.references import PROMPT_IDENTITY, external_references
from rlhf_operator.core.plan.planner import AwaitBeside, AwaitPerson, Finish, Planner, RunStage
from support.runs import BENCHMARKED, RUN, artifact_of, improving, result_of, spec_of, walk

OPTIMIZATION = {"learningRate": 1e-4, "globalBatchSize": 8}
SFT = {"data": [{"name": "demos", "uri": "hf://example/demos"}], "optimization": OPTIMIZATION}
REWARD = {
    "type": "BradleyTerry",
    "bradleyTerry": {"train": {"data": [{"name": "prefs", "uri": "hf://example/prefs"}], "optimization": OPTIMIZATION}},
}


def order(planner: Planner) -> list[str]:
    return [f"{config.stage}{'' if config.iteration is None else config.iteration}" for config in walk(planner)[0]]


def test_the_shortest_run_has_no_sft_and_no_reward_stage() -> None:
    assert order(Planner(RUN, spec_of(iterations=1))) == [
        "preflight", "evaluate", "sample1", "label1", "reference1", "train1", "evaluate1", "finalize",
    ]  # fmt: skip


def test_a_whole_run_goes_through_every_stage_in_order() -> None:
    assert order(Planner(RUN, spec_of(sft=SFT, reward=REWARD))) == [
        "preflight", "sft", "reward", "evaluate",
        "sample1", "label1", "reference1", "train1", "evaluate1",
        "sample2", "label2", "reference2", "train2", "evaluate2",
        "finalize",
    ]  # fmt: skip


@pytest.mark.parametrize("loss", ["SimPO", "CPO"])
def test_a_loss_without_reference_has_no_reference_stage(loss: str) -> None:
    configs, _ = walk(Planner(RUN, spec_of(train={"loss": {"type": loss}})))
    assert StageName.REFERENCE not in {config.stage for config in configs}
    train = next(config.work for config in configs if isinstance(config.work, TrainWork))
    assert train.reference is None
    assert [data.reference_logps for data in train.data] == [None]


def test_pi_0_is_the_sft_artifact_or_else_the_models_pinned_revision() -> None:
    configs, _ = walk(Planner(RUN, spec_of(sft=SFT)))
    sft = next(config for config in configs if config.stage is StageName.SFT)
    evaluate = next(config.work for config in configs if isinstance(config.work, EvaluateWork))
    assert evaluate.policy.model.artifact == artifact_of(sft)

    configs, _ = walk(Planner(RUN, spec_of(), resolved={"policy.model": "c0ffee"}))
    evaluate = next(config.work for config in configs if isinstance(config.work, EvaluateWork))
    assert evaluate.policy.model.source is not None
    assert evaluate.policy.model.source.revision == "c0ffee"


def test_a_reward_model_without_a_base_starts_from_pi_0_and_scores_every_iteration() -> None:
    configs, _ = walk(Planner(RUN, spec_of(sft=SFT, reward=REWARD)))
    by_stage = {config.stage: config for config in configs}
    reward = by_stage[StageName.REWARD]
    assert isinstance(reward.work, RewardWork)
    assert reward.work.base.model.artifact == artifact_of(by_stage[StageName.SFT])
    for config in configs:
        if isinstance(config.work, LabelWork):
            assert config.work.reward_model is not None
            assert config.work.reward_model.artifact == artifact_of(reward)


def test_pairs_that_a_reward_model_is_measured_by_are_pinned_as_what_it_is_trained_on() -> None:
    own = {"name": "bench", "uri": "hf://example/bench"}
    fields = REWARD["bradleyTerry"]["train"] | {"heldOut": {"data": own}}  # type: ignore[index]
    spec = spec_of(reward={"type": "BradleyTerry", "bradleyTerry": {"train": fields}})
    path = "reward.bradleyTerry.train.heldOut.data"
    assert path in [reference.path for reference in external_references(spec)]
    works = [config.work for config in walk(Planner(RUN, spec, {path: "c0ffee"}))[0]]
    [work] = [work for work in works if isinstance(work, RewardWork)]
    assert work.held_out_pairs is not None
    assert work.held_out_pairs.data is not None
    assert work.held_out_pairs.data.revision == "c0ffee"


def test_a_reward_models_own_base_speaks_its_own_template() -> None:
    """One of another family would be trained on the policy's turns, and end at ids that it does not have."""
    policy = {"model": {"uri": "hf://example/base"}, "chatTemplate": {"name": "Llama3"}, "stopTokenIds": [128009]}

    def base(**train: object) -> PolicyInput:
        fields = REWARD["bradleyTerry"]["train"] | train  # type: ignore[index]
        reward = {"type": "BradleyTerry", "bradleyTerry": {"train": fields}}
        works = [config.work for config in walk(Planner(RUN, spec_of(policy=policy, reward=reward)))[0]]
        return next(work.base for work in works if isinstance(work, RewardWork))

    own, of_policy = base(base={"uri": "hf://example/other"}), base()
    assert (own.chat_template, own.stop_token_ids) == (None, [])
    assert of_policy.chat_template is not None
    assert of_policy.stop_token_ids == [128009]


def test_mixture_words_mean_what_the_table_says() -> None:
    names = ["Latest", "Initial", "Previous", "Best"]
    mixture = [{"name": name.lower(), "iterate": {"type": name}} for name in names]
    mixture.append({"name": "zero", "iterate": {"type": "Number", "iteration": 0}})

    def metrics(iteration: int | None, stage: StageName) -> Mapping[Metric, float]:
        return {Metric.WIN_RATE_VS_INITIAL: [0.5, 0.8, 0.6, 0.7][iteration or 0]} if stage is StageName.EVALUATE else {}

    configs, _ = walk(Planner(RUN, spec_of(iterations=3, sample={"mixture": mixture})), metrics)
    samplers = [[sampler.iterate for sampler in config.work.samplers] for config in configs if isinstance(config.work, SampleWork)]
    assert samplers == [[0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [2, 0, 1, 1, 0]]


def test_a_rollback_discards_the_iterate_keeps_its_data_and_goes_on_from_the_best() -> None:
    gates = [{"name": "regress", "metric": "winRateVsPrevious", "min": 0.45, "action": "Rollback"}]

    def metrics(iteration: int | None, stage: StageName) -> Mapping[Metric, float]:
        if stage is not StageName.EVALUATE:
            return {}
        return {
            Metric.WIN_RATE_VS_INITIAL: 0.5 + 0.1 * (iteration or 0),
            Metric.WIN_RATE_VS_PREVIOUS: 0.3 if iteration == 2 else 0.6,
        }

    spec = spec_of(iterations=3, gates=gates, train={"data": {"replay": "All"}})
    configs, end = walk(Planner(RUN, spec), metrics)
    third = {config.stage: config for config in configs if config.iteration == 3}
    sample, train, evaluate = (third[stage].work for stage in (StageName.SAMPLE, StageName.TRAIN, StageName.EVALUATE))
    first_train = next(config for config in configs if config.stage is StageName.TRAIN)
    assert isinstance(sample, SampleWork)
    assert isinstance(train, TrainWork)
    assert isinstance(evaluate, EvaluateWork)
    assert {sampler.iterate for sampler in sample.samplers} == {1}
    assert train.start.model.artifact == artifact_of(first_train)
    assert [data.iteration for data in train.data] == [1, 2, 3]
    first_evaluation = next(config for config in configs if config.stage is StageName.EVALUATE and config.iteration == 1)
    assert evaluate.previous_evaluation == artifact_of(first_evaluation)
    finalize = configs[-1].work
    assert isinstance(finalize, FinalizeWork)
    assert [record.discarded for record in finalize.iterates] == [False, False, True, False]
    assert finalize.best == 3
    assert isinstance(end, Finish)


RETAINED = {"samples": "Retain", "checkpoints": "Retain"}


@dataclass(frozen=True)
class Finalized:
    work: FinalizeWork
    stages: Mapping[str, str]
    """sample1, train2, …: the stage that made an artifact, by fingerprint."""

    def names(self, refs: Sequence[ArtifactRef]) -> list[str]:
        return [self.stages[ref.fingerprint] for ref in refs]


def finalized(retention: Mapping[str, str], adopted: Collection[tuple[int | None, StageName]] = (), **changes: Any) -> Finalized:
    """What finalize of three iterations is told, where pi_2 is the best and these stages were found and not computed."""

    def metrics(iteration: int | None, stage: StageName) -> Mapping[Metric, float]:
        return {Metric.WIN_RATE_VS_INITIAL: [0.5, 0.6, 0.8, 0.7][iteration or 0]} if stage is StageName.EVALUATE else {}

    storage = {"url": "s3://bucket/tiny", "retention": {**RETAINED, **retention}}
    planner = Planner(RUN, spec_of(iterations=3, sft=SFT, reward=REWARD, storage=storage, **changes))
    history, stages = History(), {}
    while isinstance(step := planner.next_step(history), RunStage) and not isinstance(step.config.work, FinalizeWork):
        stages[step.config.fingerprint] = f"{step.config.stage}{step.config.iteration or ''}"
        result = result_of(step.config, metrics(step.config.iteration, step.config.stage))
        found = (step.config.iteration, step.config.stage) in adopted
        history = history.with_result(step.config, result.model_copy(update={"found": found}))
    assert isinstance(step, RunStage)
    assert isinstance(step.config.work, FinalizeWork)
    return Finalized(step.config.work, stages)


def data(*iterations: int) -> list[str]:
    return [f"{stage}{number}" for number in iterations for stage in ("sample", "label", "reference")]


#: Under a moving reference iteration 2 computes log-probs of D_1 too, and reads those.
MOVING = ["reference1", *data(3)]


@pytest.mark.parametrize(
    ("retention", "changes", "removed", "without_masters"),
    [
        ({}, {}, [], []),
        ({"samples": "Delete"}, {}, data(1, 2, 3), []),
        ({"samples": "KeepBest"}, {}, data(1, 3), []),
        ({"samples": "KeepBest"}, {"train": {"data": {"replay": "All"}}}, data(3), []),
        ({"samples": "KeepBest"}, {"train": {"loss": {"type": "SimPO"}}}, ["sample1", "label1", "sample3", "label3"], []),
        ({"samples": "KeepBest"}, {"reference": {"type": "Previous"}, "train": {"data": {"replay": "All"}}}, MOVING, []),
        ({"checkpoints": "KeepBest"}, {}, ["sft", "train1", "train3"], []),
        ({"checkpoints": "Delete"}, {}, ["sft", "train1", "train3"], ["train2"]),
        ({"samples": "KeepBest"}, {"selection": {"metric": "winRateVsInitial", "mode": "Min"}}, data(1, 2, 3), []),
    ],
    ids=str,
)  # fmt: skip
def test_retention_gives_up_what_it_says(
    retention: dict[str, str], changes: dict[str, Any], removed: list[str], without_masters: list[str]
) -> None:
    end = finalized(retention, **changes)
    assert sorted(end.names(end.work.removed)) == sorted(removed)
    assert end.names(end.work.without_masters) == without_masters
    assert end.names(end.work.trained) == ["sft", "reward", "train1", "train2", "train3"]


def test_what_the_run_only_found_is_never_removed() -> None:
    """It is another run's, and that one may still read it."""
    everything = {"samples": "Delete", "checkpoints": "Delete"}
    found = [(None, StageName.SFT), *((t, stage) for t in (1, 2) for stage in StageName)]
    end = finalized(everything, found)
    assert end.names(end.work.removed) == [*data(3), "train3"]
    assert end.work.without_masters == []
    assert end.names(end.work.trained) == ["reward", "train3"]


def test_a_status_tells_what_was_found() -> None:
    """The history that finalize is planned from is read from the status."""
    ref = {"url": "s3://bucket/tiny/samples/x", "digest": "a" * 64, "fingerprint": "b" * 64}
    stages = [{"name": name, "phase": "Succeeded", "artifact": ref, "adopted": name == "sample"} for name in ("sample", "label")]
    status = RLHFRunStatus.model_validate({"iterations": [{"number": 1, "stages": stages}]})
    assert [record.adopted for record in history_of(status).records] == [True, False]


def test_a_discarded_iterate_is_never_the_best() -> None:
    gates = [{"name": "length", "metric": "meanLengthRatioVsInitial", "max": 2.0, "action": "Rollback"}]

    def metrics(iteration: int | None, stage: StageName) -> Mapping[Metric, float]:
        return {**improving(iteration, stage), Metric.MEAN_LENGTH_RATIO_VS_INITIAL: 3.0 if iteration == 2 else 1.0}

    configs, _ = walk(Planner(RUN, spec_of(gates=gates)), metrics)
    finalize = configs[-1].work
    assert isinstance(finalize, FinalizeWork)
    assert finalize.best == 1


def test_stop_goes_to_finalize_with_the_best_iterate() -> None:
    gates = [{"name": "enough", "metric": "winRateVsInitial", "max": 0.55, "action": "Stop"}]
    configs, end = walk(Planner(RUN, spec_of(iterations=3, gates=gates)))
    assert [config.iteration for config in configs if config.stage is StageName.TRAIN] == [1]
    assert configs[-1].stage is StageName.FINALIZE
    assert isinstance(end, Finish)
    assert end.reason is Reason.GATE_STOPPED
    assert end.best == 1
    assert "enough" in end.message


def test_pause_waits_for_an_approval_of_this_gate_and_iteration() -> None:
    gates = [{"name": "look", "metric": "winRateVsInitial", "max": 0.55, "action": "Pause"}]
    _, end = walk(Planner(RUN, spec_of(gates=gates)))
    assert isinstance(end, AwaitPerson)
    assert (end.reason, "{gate: look, iteration: 1}" in end.message) == (Reason.GATE_PAUSED, True)
    _, end = walk(Planner(RUN, spec_of(gates=gates, approvals=[{"gate": "look", "iteration": 1}])))
    assert isinstance(end, AwaitPerson)
    assert "{gate: look, iteration: 2}" in end.message
    both = [{"gate": "look", "iteration": 1}, {"gate": "look", "iteration": 2}]
    _, end = walk(Planner(RUN, spec_of(gates=gates, approvals=both)))
    assert isinstance(end, Finish)


def test_benchmarks_are_beside_the_chain_and_only_finalize_waits_for_them() -> None:
    planner = Planner(RUN, spec_of(iterations=1, evaluate=BENCHMARKED))
    history = History()
    waited: list[tuple[int | None, StageName]] = []
    while isinstance(step := planner.next_step(history), RunStage):
        waited.append((step.config.iteration, step.config.stage))
        history = history.with_result(step.config, result_of(step.config, improving(step.config.iteration, step.config.stage)))
    assert waited[-1] == (1, StageName.EVALUATE)
    assert isinstance(step, AwaitBeside)
    plan = planner.plan(planner.chain(history))
    assert [(config.iteration, config.stage) for config in plan.beside] == [(None, StageName.BENCHMARK), (1, StageName.BENCHMARK)]
    assert history.chain_length == len(waited) - 1, "preflight seals nothing"
    for config in plan.beside:
        history = history.with_result(config, result_of(config), beside=True)
    assert history.chain_length == len(waited) - 1
    last = planner.next_step(history)
    assert isinstance(last, RunStage)
    assert last.config.stage is StageName.FINALIZE


def test_what_is_beside_the_chain_changes_no_figure_that_an_iteration_is_judged_by() -> None:
    """It may end after the verdict."""
    records = [
        StageRecord(
            1, StageName.EVALUATE, metrics={Metric.WIN_RATE_VS_INITIAL: MetricValue(value=0.6)}, costs=(1.0, 0.0, 1.0, 0.0)
        ),
        StageRecord(1, StageName.BENCHMARK, beside=True, costs=(100.0, 0.0, 100.0, 0.0)),
    ]
    assert History(tuple(records)).iteration_metrics(1) == History(tuple(records[:1])).iteration_metrics(1)


def test_a_stage_beside_the_chain_that_was_given_up_is_left_out_and_named_at_the_end() -> None:
    planner = Planner(RUN, spec_of(iterations=1, evaluate=BENCHMARKED))
    history = History(given_up=((None, StageName.BENCHMARK), (1, StageName.BENCHMARK)))
    while isinstance(step := planner.next_step(history), RunStage):
        assert planner.plan(planner.chain(history)).beside == ()
        history = history.with_result(step.config, result_of(step.config, improving(step.config.iteration, step.config.stage)))
    assert isinstance(step, Finish)
    assert step.message.endswith("Left out: benchmark of pi_0, benchmark of pi_1.")


def test_raising_iterations_goes_on_but_not_after_finalize_was_begun() -> None:
    configs, _ = walk(Planner(RUN, spec_of(iterations=1)), steps=7)
    assert configs[-1].stage is StageName.EVALUATE
    records = tuple(StageRecord(config.iteration, config.stage, artifact_of(config)) for config in configs)
    raised = Planner(RUN, spec_of(iterations=2), prompt_iterations=1)
    step = raised.next_step(History(records))
    assert isinstance(step, RunStage)
    assert (step.config.stage, step.config.iteration) == (StageName.SAMPLE, 2)
    assert isinstance(step.config.work, SampleWork)
    assert step.config.work.prompts.iterations == 1, "the hold-outs stay those of the start"
    step = raised.next_step(History(records, finalizing=True))
    assert isinstance(step, RunStage)
    assert step.config.stage is StageName.FINALIZE


def test_prompt_sources_by_iteration_are_pinned_one_by_one() -> None:
    resolved = {"prompts.source/1": "a1", "prompts.source/2": "b2"}
    spec = spec_of(prompts={"source": {"uri": "hf://example/prompts-{iteration}"}})
    configs, _ = walk(Planner(RUN, spec, resolved))
    samples = [config.work for config in configs if isinstance(config.work, SampleWork)]
    assert [work.prompts.source_revisions for work in samples] == [["a1", "b2"]] * 2


def test_a_resolve_attempt_looks_up_the_fingerprint_of_its_target() -> None:
    planner = Planner(RUN, spec_of())
    configs, _ = walk(planner)
    sample = next(config for config in configs if config.stage is StageName.SAMPLE)
    resolve = planner.attempt_config(sample, attempt=3, resolving=True)
    assert isinstance(resolve.work, ResolveWork)
    assert (resolve.work.target, resolve.fingerprint, resolve.execution.attempt) == (StageName.SAMPLE, sample.fingerprint, 3)


def test_no_two_stages_of_a_run_share_a_fingerprint() -> None:
    configs, _ = walk(Planner(RUN, spec_of(iterations=5, sft=SFT, reward=REWARD)))
    assert len({config.fingerprint for config in configs}) == len(configs)


def works(resolved: Mapping[str, str], **changes: Any) -> dict[StageName, dict[str, Any]]:
    """Of a run of one iteration that has every stage, as the stages are told."""
    spec = spec_of(iterations=1, sft=SFT, reward=REWARD, **changes)
    configs, _ = walk(Planner(RUN, spec, resolved))
    return {config.stage: config.work.model_dump(mode="json", by_alias=True, exclude_defaults=True) for config in configs}


def test_a_run_that_began_before_prompts_had_an_identity_keeps_the_work_it_had() -> None:
    """What it sealed is found by that work, and what it held out stays held out."""
    for work in works({}).values():
        assert "heldOut" not in work
        assert "promptIdentity" not in work
        assert "identity" not in work.get("prompts", {})


def test_a_run_that_begins_now_knows_prompts_by_what_is_read_and_trains_on_none_that_are_held_out() -> None:
    now = works({PROMPT_IDENTITY: "Rendered"})
    assert now[StageName.SAMPLE]["prompts"]["identity"] == "Rendered"
    assert now[StageName.EVALUATE]["promptIdentity"] == "Rendered"
    for stage in (StageName.SFT, StageName.REWARD):
        assert now[stage]["heldOut"]["identity"] == "Rendered"


def test_how_many_prompts_an_iteration_takes_changes_no_training_that_only_must_not_see_them() -> None:
    fewer = works({PROMPT_IDENTITY: "Rendered"}, prompts={"source": {"uri": "hf://example/prompts"}, "perIteration": 7})
    more = works({PROMPT_IDENTITY: "Rendered"}, prompts={"source": {"uri": "hf://example/prompts"}, "perIteration": 8})
    assert fewer[StageName.SFT] == more[StageName.SFT]
    assert fewer[StageName.SAMPLE] != more[StageName.SAMPLE]


@pytest.mark.parametrize("resolved", [{}, {PROMPT_IDENTITY: "Rendered"}], ids=["before", "now"])
def test_how_many_may_ask_nearly_what_is_held_out_changes_no_work(resolved: dict[str, str]) -> None:
    """preflight refuses or does not; what is made is the same, and so is what was made before there was the field."""
    source = {"source": {"uri": "hf://example/prompts"}}
    absent, some = (
        {stage: work for stage, work in works(resolved, prompts=prompts).items() if stage is not StageName.PREFLIGHT}
        for prompts in (source, {**source, "maxNearHeldOut": 0.5})
    )
    assert absent == some
    assert "maxNearHeldOut" not in str(some)
