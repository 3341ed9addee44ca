"""Unions: `type` and exactly the member it names; exactly, at least, at most one of several; fields of one type only."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_api.resource.unions import UNIONS, Tagged
from support.manifests import paths, problems

SECRET = {"secretKeyRef": {"name": "wandb", "key": "WANDB_API_KEY"}}
GATE = {"name": "g", "metric": "rewardMean", "action": "Stop"}
MODEL = {"uri": "hf://a/b"}
DATA = [{"name": "a", "uri": "hf://owner/data"}]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"spec.reward": {"type": "BradleyTerry"}}, ["spec.reward.bradleyTerry"]),
        (
            {"spec.reward": {"type": "BradleyTerry", "rule": {"entryPoint": "a:b"}}},
            ["spec.reward.rule", "spec.reward.bradleyTerry"],
        ),
        (
            {"spec.reward": {"type": "BradleyTerry", "bradleyTerry": {"model": MODEL}, "rule": {"entryPoint": "a:b"}}},
            ["spec.reward.rule"],
        ),
        ({"spec.reward.bradleyTerry": {}}, ["spec.reward.bradleyTerry"]),
        ({"spec.reward.bradleyTerry": {"model": MODEL, "train": {"data": DATA}}}, ["spec.reward.bradleyTerry"]),
        ({"spec.policy.chatTemplate": {}}, ["spec.policy.chatTemplate"]),
        ({"spec.policy.chatTemplate": {"name": "Llama3", "inline": "x"}}, ["spec.policy.chatTemplate"]),
        ({"spec.policy.chatTemplate": {"inline": "x"}}, []),
        ({"spec.storage.credentials": {"secretRef": {"name": "a"}, "serviceAccountName": "b"}}, ["spec.storage.credentials"]),
        ({"spec.storage.credentials": {}}, []),
        ({"spec.prompts.validation": {}}, ["spec.prompts.validation"]),
        ({"spec.prompts.validation": {"size": 3, "fraction": 0.1}}, ["spec.prompts.validation"]),
        ({"spec.prompts.test": {"source": MODEL}}, []),
        ({"spec.podDefaults": {"volumes": [{"name": "v"}]}}, ["spec.podDefaults.volumes[0]"]),
        (
            {"spec.podDefaults": {"volumes": [{"name": "v", "emptyDir": {}, "configMap": {"name": "c"}}]}},
            ["spec.podDefaults.volumes[0]"],
        ),
        ({"spec.podDefaults": {"env": [{"name": "A"}]}}, ["spec.podDefaults.env[0]"]),
        ({"spec.podDefaults": {"env": [{"name": "A", "value": "x", "valueFrom": SECRET}]}}, ["spec.podDefaults.env[0]"]),
        ({"spec.podDefaults": {"env": [{"name": "A", "value": ""}, {"name": "B", "valueFrom": SECRET}]}}, []),
        ({"spec.gates": [GATE]}, ["spec.gates[0]"]),
        ({"spec.gates": [{**GATE, "min": 1, "max": 2}]}, ["spec.gates[0]"]),
        ({"spec.gates": [{**GATE, "max": 1, "plateau": {"iterations": 1, "minDelta": 0.1}}]}, ["spec.gates[0]"]),
        ({"spec.gates": [{**GATE, "min": 0}]}, []),
        ({"spec.sample.mixture": [{"name": "a", "iterate": {"type": "Number"}}]}, ["spec.sample.mixture[0].iterate.iteration"]),
        ({"spec.sample.mixture": [{"name": "a", "iterate": {"iteration": 1}}]}, ["spec.sample.mixture[0].iterate.iteration"]),
        ({"spec.sample.mixture": [{"name": "a", "iterate": {"type": "Number", "iteration": 0}}]}, []),
        ({"spec.reference": {"type": "Model"}}, ["spec.reference.model"]),
        ({"spec.reference": {"model": MODEL}}, ["spec.reference.model"]),
        ({"spec.train.data": {"replay": "Window"}}, ["spec.train.data.window"]),
        ({"spec.train.data": {"window": 2}}, ["spec.train.data.window"]),
        ({"spec.train.loss": {"average": "Sum"}}, ["spec.train.loss.average"]),
        ({"spec.train.loss": {"type": "IPO", "average": "Sum"}}, []),
        ({"spec.train.loss": {"gamma": 1}}, ["spec.train.loss.gamma"]),
        ({"spec.train.loss": {"type": "SimPO", "gamma": 1}}, []),
        ({"spec.train.loss": {"labelSmoothing": 0.1}}, ["spec.train.loss.labelSmoothing"]),
        ({"spec.train.loss": {"type": "CDPO", "labelSmoothing": 0.1}}, []),
        ({"spec.train.loss": {"type": "Robust", "labelSmoothing": 0.1}}, []),
    ],
    ids=str,
)
def test_unions_hold(changes: dict[str, Any], found: list[str]) -> None:
    assert paths(changes) == found


def test_a_wrong_member_is_named_together_with_both_ways_out() -> None:
    (problem,) = problems({"spec.train.loss": {"type": "IPO", "gamma": 1}})
    assert str(problem) == "spec.train.loss.gamma: 1: belongs to type SimPO, and type is IPO; remove gamma, or write type: SimPO"


def test_a_missing_member_suggests_the_type_of_the_member_that_is_there() -> None:
    found = problems({"spec.reward": {"type": "BradleyTerry", "rule": {"entryPoint": "a:b"}}})
    assert str(found[1]) == (
        "spec.reward.bradleyTerry: required with type BradleyTerry, and absent; give bradleyTerry, or write type: Rule"
    )


@pytest.mark.parametrize("model", UNIONS, ids=lambda model: model.__name__)
def test_the_api_server_gets_every_union_as_a_rule(model: Any) -> None:
    for union in UNIONS[model]:
        rules = list(union.cel(model))
        assert len(rules) == (len(union.members) if isinstance(union, Tagged) else 1)
        assert all(rule.rule.count("(") == rule.rule.count(")") and rule.message for rule in rules)
