"""Which data sets an iteration trains on, and under which log-probs: D_off, and the D_i that are replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from rlhf_api.stage import ReferenceWork, TrainWork
from rlhf_api.words import StageName
from rlhf_operator.core.chain.references import PROMPT_IDENTITY
from rlhf_operator.core.plan.planner import Planner
from support.runs import RUN, artifact_of, spec_of, walk

OPTIMIZATION = {"learningRate": 1e-4, "globalBatchSize": 8}
SFT = {"data": [{"name": "demos", "uri": "hf://example/demos"}], "optimization": OPTIMIZATION}


def train_sets(replay: Mapping[str, object], iterations: int = 3) -> list[list[int]]:
    configs, _ = walk(Planner(RUN, spec_of(iterations=iterations, train={"data": replay})))
    return [[data.iteration for data in config.work.data] for config in configs if isinstance(config.work, TrainWork)]


def test_replay_chooses_the_data_sets() -> None:
    assert train_sets({"replay": "Latest"}) == [[1], [2], [3]]
    assert train_sets({"replay": "All"}) == [[1], [1, 2], [1, 2, 3]]
    assert train_sets({"replay": "Window", "window": 2}) == [[1], [1, 2], [2, 3]]


def reference_sets(**changes: object) -> list[list[int]]:
    configs, _ = walk(Planner(RUN, spec_of(iterations=3, train={"data": {"replay": "All"}}, **changes)))
    return [[data.iteration for data in config.work.data] for config in configs if isinstance(config.work, ReferenceWork)]


def test_log_probs_under_a_fixed_reference_are_computed_once_a_data_set() -> None:
    assert reference_sets() == [[1], [2], [3]]
    assert reference_sets(reference={"type": "Model", "model": {"uri": "hf://example/other"}}) == [[1], [2], [3]]


def test_log_probs_under_a_moving_reference_are_computed_for_all_that_train_reads() -> None:
    assert reference_sets(reference={"type": "Previous"}) == [[1], [1, 2], [1, 2, 3]]


def test_train_reads_for_each_data_set_the_log_probs_that_cover_it() -> None:
    configs, _ = walk(Planner(RUN, spec_of(iterations=3, train={"data": {"replay": "All"}})))
    references = [artifact_of(config) for config in configs if config.stage is StageName.REFERENCE]
    last = [config.work for config in configs if isinstance(config.work, TrainWork)][-1]
    assert [data.reference_logps for data in last.data] == references


OFFLINE = {"offline": [{"name": "outside", "uri": "hf://example/pairs"}]}


def test_offline_preferences_are_trained_on_in_every_iteration_and_scored_once_under_a_fixed_reference() -> None:
    resolved = {"policy.model": "c0ffee", "train.data.offline/outside": "beef", PROMPT_IDENTITY: "Rendered"}
    configs, _ = walk(Planner(RUN, spec_of(sft=SFT, iterations=3, train={"data": OFFLINE}), resolved))
    references = [config.work for config in configs if isinstance(config.work, ReferenceWork)]
    trains = [config.work for config in configs if isinstance(config.work, TrainWork)]
    [first] = [work.offline for work in references if work.offline is not None]
    assert references[0].offline == first
    assert [source.revision for source in first.data] == ["beef"]
    assert first.held_out is not None
    # Not pi_0 of sft, which preflight could not read yet: what is rendered is the same.
    assert first.policy.model.source is not None
    assert first.policy.model.source.revision == "c0ffee"
    assert [work.offline for work in trains] == [first] * 3
    [made, *_] = [config for config in configs if config.stage is StageName.REFERENCE]
    assert [work.offline_logps for work in trains] == [artifact_of(made)] * 3


def test_offline_preferences_are_scored_anew_under_a_moving_reference_and_never_without_one() -> None:
    def scored(**changes: Any) -> list[bool]:
        configs, _ = walk(Planner(RUN, spec_of(iterations=3, **changes)))
        return [config.work.offline is not None for config in configs if isinstance(config.work, ReferenceWork)]

    assert scored(train={"data": OFFLINE}, reference={"type": "Previous"}) == [True, True, True]
    configs, _ = walk(Planner(RUN, spec_of(train={"data": OFFLINE, "loss": {"type": "SimPO"}})))
    work = next(config.work for config in configs if isinstance(config.work, TrainWork))
    assert work.offline is not None
    assert work.offline_logps is None


@pytest.mark.parametrize(("loss", "with_scores"), [("Sigmoid", False), ("REBEL", True)])
def test_a_loss_of_scores_asks_for_them(loss: str, with_scores: bool) -> None:
    configs, _ = walk(Planner(RUN, spec_of(train={"data": OFFLINE, "loss": {"type": loss}})))
    work = next(config.work for config in configs if isinstance(config.work, TrainWork))
    assert work.offline is not None
    assert work.offline.with_scores is with_scores
