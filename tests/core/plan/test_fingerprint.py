"""What is in the identity of an artifact, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_api.stage import StageConfig
from rlhf_api.words import StageName
from rlhf_operator.core.plan.fingerprint import fingerprint
from rlhf_operator.core.plan.planner import Planner
from support.runs import RUN, spec_of, walk

OPTIMIZATION = {"learningRate": 1e-4, "globalBatchSize": 8}


def fingerprints(**changes: Any) -> dict[tuple[int | None, StageName], str]:
    resolved = changes.pop("resolved", {})
    configs, _ = walk(Planner(RUN, spec_of(**changes), resolved))
    skipped = (StageName.PREFLIGHT, StageName.FINALIZE)
    return {(config.iteration, config.stage): config.fingerprint for config in configs if config.stage not in skipped}


POD = {"resources": {"limits": {"nvidia.com/gpu": 8}}}


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "example/other:1"},
        {"sample": {"shards": 8, "parallelism": 4, "pod": POD, "engine": {"tensorParallelSize": 2}}},
        {"label": {"shards": 8, "pod": POD}},
        {"reference": {"shards": 8, "pod": POD}},
        {"train": {"checkpointEverySteps": 7, "compute": {"nodes": 2, "processesPerNode": 4, "pod": POD}}},
        {"train": {"optimization": {"gradientCheckpointing": False}}},
        {"retry": {"application": 9}},
        {"storage": {"url": "s3://elsewhere/tiny", "retention": {"samples": "Delete"}}},
        {"policy": {"model": {"uri": "hf://example/base", "credentials": {"secretRef": {"name": "token"}}}}},
        {"podDefaults": POD, "queue": {"name": "gpus"}},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_how_a_stage_runs_is_not_in_it(changes: dict[str, Any]) -> None:
    assert fingerprints(**changes) == fingerprints()


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"seed": 43}, (None, StageName.EVALUATE)),
        ({"resolved": {"policy.model": "c0ffee"}}, (None, StageName.EVALUATE)),
        ({"resolved": {"reward.rule": "c0ffee"}}, (None, StageName.EVALUATE)),
        ({"sample": {"maxNewTokens": 64}}, (None, StageName.EVALUATE)),
        ({"sample": {"completionsPerPrompt": 4}}, (1, StageName.SAMPLE)),
        ({"label": {"lengthPenaltyPerCharacter": 0.001}}, (1, StageName.LABEL)),
        ({"train": {"maxLength": 1500}}, (1, StageName.REFERENCE)),
        ({"train": {"optimization": {"learningRate": 1e-6}}}, (1, StageName.TRAIN)),
    ],
    ids=lambda value: str(value),
)
def test_a_change_of_the_work_changes_its_stage_and_all_behind_it(
    changes: dict[str, Any], first: tuple[int | None, StageName]
) -> None:
    before, after = fingerprints(), fingerprints(**changes)
    changed = [before[key] != after[key] for key in before]
    at = list(before).index(first)
    assert changed[at]
    assert not any(changed[:at])
    assert before[1, StageName.TRAIN] != after[1, StageName.TRAIN]


def test_a_rules_code_is_in_what_it_scores_and_in_nothing_before_it() -> None:
    def changed(path: str) -> set[tuple[int | None, StageName]]:
        before, after = fingerprints(), fingerprints(resolved={path: "c0ffee"})
        return {key for key in before if key[0] in (None, 1) and before[key] != after[key]}

    evaluations = {(None, StageName.EVALUATE), (1, StageName.EVALUATE)}
    behind = {(1, stage) for stage in (StageName.LABEL, StageName.REFERENCE, StageName.TRAIN)}
    assert changed("reward.rule") == evaluations | behind
    assert changed("evaluate.judge.rule") == evaluations


@pytest.mark.parametrize(
    "members",
    [
        {"regex": {"pattern": "a"}},
        {"regex": {"pattern": "a", "mode": "FullMatch"}},
        {"regex": {"pattern": "a", "negate": True}},
        {"exactMatch": {}},
        {"exactMatch": {"strip": False}},
        {"numericAnswer": {}},
        {"numericAnswer": {"tolerance": 0.5}},
        {"jsonSchema": {"inline": "{}"}},
    ],
    ids=str,
)
def test_what_a_manifest_says_itself_of_right_responses_is_their_labels_identity(members: dict[str, Any]) -> None:
    source = {"uri": "hf://example/prompts", "answerColumn": "answer"}

    def of(rule: dict[str, Any], **changes: Any) -> dict[tuple[int | None, StageName], str]:
        return fingerprints(reward={"type": "Rule", "rule": rule}, prompts={"source": source}, **changes)

    own, other = of(members), of({"regex": {"pattern": "b"}})
    assert own[1, StageName.SAMPLE] == other[1, StageName.SAMPLE]
    assert own[1, StageName.LABEL] != other[1, StageName.LABEL]
    assert of(members, resolved={"reward.rule": "c0ffee"}) == own, "it has no code"


def judged(prompt: str | None = None, **endpoint: Any) -> dict[str, Any]:
    served = {"baseUrl": "http://judge/v1", "model": "judge", **endpoint}
    return {"type": "Judge", "judge": {"endpoint": served} | ({"prompt": prompt} if prompt else {})}


def test_who_is_asked_to_judge_and_what_is_in_it_and_how_is_not() -> None:
    asked: dict[str, Any] = {
        "maxRequests": 9,
        "timeoutSeconds": 3,
        "retries": 1,
        "concurrency": 2,
        "apiKey": {"secretRef": {"name": "key"}},
    }
    own = fingerprints(reward=judged())
    assert fingerprints(reward=judged(**asked)) == own
    assert fingerprints(evaluate={"judge": judged(**asked)}) == fingerprints(evaluate={"judge": judged()})
    for changed in (judged(model="other"), judged(baseUrl="http://other/v1"), judged("Be brief.")):
        other = fingerprints(reward=changed)
        assert other[1, StageName.SAMPLE] == own[1, StageName.SAMPLE]
        assert other[1, StageName.LABEL] != own[1, StageName.LABEL]


def test_how_a_judge_is_asked_is_told_to_the_stages_that_ask_it() -> None:
    configs, _ = walk(Planner(RUN, spec_of(reward=judged(retries=1), evaluate={"judge": judged(retries=2)}), {}))
    for config in configs:
        reward, judge = config.execution.reward_endpoint, config.execution.judge_endpoint
        asked = [endpoint.retries if endpoint else None for endpoint in (reward, judge)]
        assert asked == {StageName.LABEL: [1, None], StageName.EVALUATE: [1, 2]}.get(config.stage, [None, None])


def test_a_column_of_answers_is_in_samples_and_evaluations_and_not_in_what_is_held_out() -> None:
    sft = {"data": [{"name": "a", "uri": "hf://example/a"}], "optimization": OPTIMIZATION}
    resolved = {"prompts.identity": "Rendered"}
    held = {"validation": {"source": {"uri": "hf://example/v"}}}
    answered = {"source": {"uri": "hf://example/p", "answerColumn": "a"}}
    plain = fingerprints(sft=sft, resolved=resolved, prompts={"source": {"uri": "hf://example/p"}, **held})
    own = fingerprints(sft=sft, resolved=resolved, prompts={**answered, **held})
    held["validation"]["source"]["answerColumn"] = "b"
    both = fingerprints(sft=sft, resolved=resolved, prompts={**answered, **held})
    assert plain[None, StageName.SFT] == own[None, StageName.SFT] == both[None, StageName.SFT]
    assert plain[1, StageName.SAMPLE] != own[1, StageName.SAMPLE]
    assert len({found[None, StageName.EVALUATE] for found in (plain, own, both)}) == 3


def test_a_revision_of_what_is_no_rule_is_in_no_work() -> None:
    """A status is read as it is; what an operator of another version wrote there means nothing more than what is asked of it."""
    model = {"type": "BradleyTerry", "bradleyTerry": {"model": {"uri": "hf://example/rm"}}}
    plain = fingerprints(reward=model, evaluate={"judge": model})
    assert fingerprints(reward=model, evaluate={"judge": model}, resolved={"reward.rule": "c0ffee"}) == plain


def test_it_survives_the_way_through_json() -> None:
    for config in walk(Planner(RUN, spec_of()))[0]:
        read = StageConfig.model_validate_json(config.model_dump_json(by_alias=True, exclude_none=True))
        assert fingerprint(read.work, read.seed) == config.fingerprint


def test_a_trained_reward_models_pod_is_not_in_the_labels() -> None:
    def reward(compute: dict[str, Any]) -> dict[str, Any]:
        data = [{"name": "prefs", "uri": "hf://example/prefs"}]
        return {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": data, "optimization": OPTIMIZATION, "compute": compute}}}

    assert fingerprints(reward=reward({"processesPerNode": 4, "pod": POD})) == fingerprints(reward=reward({}))


def test_cleaning_that_asks_for_nothing_and_a_cap_that_is_absent_leave_a_trained_reward_as_it_was() -> None:
    def reward(source: dict[str, Any] | None = None, **train: Any) -> str:
        data = [{"name": "prefs", "uri": "hf://example/prefs", **(source or {})}]
        spec = {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": data, "optimization": OPTIMIZATION, **train}}}
        return fingerprints(reward=spec)[None, StageName.REWARD]

    assert reward() == reward(cleaning={}) == "dc6fbabb9d47710640fd0e6674e5ba13e909ca38bc4555e22035d5b83e49922c"
    changed = [
        reward(cleaning={"dropDuplicates": True}),
        reward(cleaning={"dropContradictions": True}),
        reward(cleaning={"maxPairsPerPrompt": 5}),
        reward({"maxExamples": 1000}),
        reward(heldOut={"fraction": 0.1}),
        reward(heldOut={"size": 100}),
        reward(heldOut={"data": {"name": "bench", "uri": "hf://example/bench"}}),
    ]
    assert len({reward(), *changed}) == 8


def test_it_is_frozen() -> None:
    """A change here makes every artifact in every store unfindable: raise FORMAT_VERSION on purpose instead."""
    assert fingerprints()[None, StageName.EVALUATE] == "e072ce94fce2e1671365c947bb4bb556544acb1ba87fdd52733dcb17339b8c51"
