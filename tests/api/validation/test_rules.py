"""Rules across fields: each breaks with the manifest that breaks it, and names the field to change."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.validation import validate
from rlhf_api.validation.rules.sampling import FREE_ENGINE_ARGUMENTS
from support.manifests import (
    ANSWERED,
    ASKED,
    DATA,
    MATCHED,
    SERVED,
    TRAINED,
    gate,
    limits,
    manifest,
    mounted,
    paths,
    pod,
    problems,
)
from support.right_manifests import ACCEPTED

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    # Batches.
    (
        {"spec.train.compute": {"nodes": 2, "processesPerNode": 3}},
        "spec.train.optimization.globalBatchSize",
        "128: not divisible by the 6 ranks (nodes 2 times processesPerNode 3); write a multiple of 6: 126 or 132",
    ),
    (
        {"spec.train.optimization": {"globalBatchSize": 1}, "spec.train.compute": {"nodes": 2}},
        "spec.train.optimization.globalBatchSize",
        ": 2",
    ),
    ({"spec.sft": {"data": DATA, "compute": {"processesPerNode": 3}}}, "spec.sft.optimization.globalBatchSize", "126 or 129"),
    (
        {"spec.reward": {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": DATA, "compute": {"processesPerNode": 3}}}}},
        "spec.reward.bradleyTerry.train.optimization.globalBatchSize",
        "510 or 513",
    ),
    (
        {"spec.reward": {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": DATA, "heldOut": {"data": DATA[0]}}}}},
        "spec.reward.bradleyTerry.train.heldOut.data.name",
        "is the name of a set of data, too; write another name",
    ),
    (
        {"spec.gates": [gate(metric="heldOutRewardAccuracy", min=0.6)]},
        "spec.gates[0].metric",
        "measured once, of the reward model that the run trains, and in no iteration",
    ),
    # Lengths.
    ({"spec.train.maxLength": 1000}, "spec.train.maxPromptLength", "1000: leaves no token for the response"),
    ({"spec.train.tokenBudget": 100}, "spec.train.tokenBudget", "write at least 2048"),
    # Pairs.
    (
        {"spec.reward": MATCHED, "spec.label.pairing": {"minRewardStd": 0.5}},
        "spec.label.pairing.minRewardStd",
        "0.5: above every prompt's: the scores of this reward (Rule) lie between 0 and 1",
    ),
    (
        {"spec.reward": {"type": "Pairwise", "pairwise": {"model": {"uri": "hf://a/b"}}}, "spec.label.pairing.minRewardStd": 3},
        "spec.label.pairing.minRewardStd",
        "(Pairwise) lie between 0 and 1, so that no standard deviation is above 0.5; write less than 0.5",
    ),
    (
        {"spec.reward": MATCHED, "spec.label.pairing": {"minMargin": 1}},
        "spec.label.pairing.minMargin",
        "above every pair's",
    ),
    ({"spec.reward": SERVED, "spec.label.pairing.minRewardStd": 0.5}, "spec.label.pairing.minRewardStd", "(Judge) lie between 0"),
    # Code that would never run.
    *(
        (
            {place: {"type": "MultiObjective", "multiObjective": {"model": {"uri": "hf://owner/other", "trustRemoteCode": True}}}},
            f"{place}.multiObjective.model.trustRemoteCode",
            "code of multi-objective models is never run: they are read without it; write false, or remove it",
        )
        for place in ("spec.reward", "spec.evaluate.judge")
    ),
    # DeepSpeed.
    ({"spec.train.compute": {"deepspeed": {"offload": "All"}}}, "spec.train.compute.deepspeed.offload", "needs zeroStage 3"),
    (
        {"spec.train.compute": {"deepspeed": {"offload": "Optimizer", "zeroStage": 0}}},
        "spec.train.compute.deepspeed.offload",
        "zeroStage 1",
    ),
    # Reference answers.
    (
        {"spec.reward": ANSWERED},
        "spec.prompts.source.answerColumn",
        "absent, and reward.rule.exactMatch compares with the reference answers of its rows; name the column that holds them",
    ),
    (
        {"spec.reward": ANSWERED, "spec.prompts": {"source": ASKED, "validation": {"source": {"uri": "hf://a/b"}}}},
        "spec.prompts.validation.source.answerColumn",
        "reward.rule.exactMatch",
    ),
    (
        {"spec.evaluate.judge": {"type": "Rule", "rule": {"numericAnswer": {}}}},
        "spec.prompts.source.answerColumn",
        "evaluate.judge.rule.numericAnswer",
    ),
    (
        {"spec.evaluate.judge": ANSWERED, "spec.prompts": {"source": ASKED, "test": {"source": {"uri": "hf://a/b"}}}},
        "spec.prompts.test.source.answerColumn",
        "evaluate.judge.rule.exactMatch",
    ),
    (
        {"spec.prompts.source": {**ASKED, "column": "answer"}},
        "spec.prompts.source.answerColumn",
        '"answer": the column that holds the prompt, so that the policy would read the answer; name a column of its own',
    ),
    ({"spec.evaluate.judge": TRAINED}, "spec.evaluate.judge.bradleyTerry.model.uri", "the judge is the training reward"),
    (
        {
            "spec.evaluate.judge": {
                "type": "BradleyTerry",
                "bradleyTerry": {"model": {"uri": "hf://owner/other", "base": "owner/reward"}},
            }
        },
        "spec.evaluate.judge.bradleyTerry.model.base",
        "the judge descends from the training reward",
    ),
    # Selection and gates.
    ({"spec.selection.metric": "winRateVsPrevious"}, "spec.selection.metric", "write winRateVsInitial"),
    ({"spec.selection.metric": "trainLoss"}, "spec.selection.metric", "not measured by evaluate, so pi_0 has none"),
    ({"spec.selection.metric": "yield"}, "spec.selection.metric", "not measured by evaluate"),
    ({"spec.evaluate.against": ["Previous"]}, "spec.selection.metric", "needs Initial in evaluate.against"),
    (
        {"spec.evaluate.against": ["Initial"], "spec.gates": [gate(metric="winRateVsPrevious", min=0.4)]},
        "spec.gates[0].metric",
        "needs Previous in evaluate.against",
    ),
    ({"spec.evaluate.against": ["Initial", "Initial"]}, "spec.evaluate.against", "names Initial twice"),
    ({"spec.gates": [gate(metric="winRateVsInitial", min=45)]}, "spec.gates[0].min", "is a share, from 0 to 1; write 0.45"),
    ({"spec.gates": [gate(metric="clippedShare", max=-1)]}, "spec.gates[0].max", "write a number from 0 to 1"),
    (
        {
            "spec.gates": [
                {"name": "g", "benchmark": {"task": "gsm8k", "metric": "exact_match,strict-match"}, "min": 0.5, "action": "Stop"}
            ],
            "spec.evaluate.lmEval": {"tasks": ["gsm8k"]},
        },
        "spec.gates[0].benchmark.metric",
        "write exact_match/strict-match",
    ),
    # Approvals.
    ({"spec.approvals": [{"gate": "g", "iteration": 1}]}, "spec.approvals[0].gate", "no gate has action Pause"),
    (
        {"spec.gates": [gate(max=1, action="Pause")], "spec.approvals": [{"gate": "h", "iteration": 1}]},
        "spec.approvals[0].gate",
        "no gate has this name; write g",
    ),
    (
        {"spec.gates": [gate(max=1)], "spec.approvals": [{"gate": "g", "iteration": 1}]},
        "spec.approvals[0].gate",
        "this gate has action Stop and waits for nobody",
    ),
    (
        {"spec.gates": [gate(max=1, action="Pause")], "spec.approvals": [{"gate": "g", "iteration": 4}]},
        "spec.approvals[0].iteration",
        "write 1 to 3",
    ),
    # Prompts.
    ({"spec.prompts.validation": {"size": 0}}, "spec.prompts.validation.size", "write at least 1"),
    (
        {"spec.prompts.validation": {"fraction": 0.5}, "spec.prompts.test": {"fraction": 0.5}},
        "spec.prompts.test.fraction",
        "none are left to learn from",
    ),
    # Sampling.
    ({"spec.sample.parallelism": 2}, "spec.sample.parallelism", "more at a time than shards there are: 1"),
    ({"spec.label.parallelism": 2}, "spec.label.parallelism", "write at most 1"),
    ({"spec.reference.parallelism": 2}, "spec.reference.parallelism", "write at most 1"),
    (
        {"spec.sample.mixture": [{"name": "a", "weight": 100.0}, {"name": "b", "weight": 1.0}]},
        "spec.sample.mixture[1].weight",
        '(of "b"): 1: too small for one of the 8 completions of a prompt: the entries get [8, 0]',
    ),
    (
        {"spec.sample.mixture": [{"name": "a", "temperature": 0.0}, {"name": "b"}]},
        "spec.sample.mixture[0].temperature",
        "greedy, and would give each prompt the same completion 4 times",
    ),
    (
        {"spec.sample.mixture": [{"name": "a", "topK": 1}, {"name": "b", "weight": 3.0}]},
        "spec.sample.mixture[0].topK",
        "the same completion 2 times; raise it, or lower",
    ),
    (
        {"spec.sample.mixture": [{"name": "a", "iterate": {"type": "Number", "iteration": 3}}]},
        "spec.sample.mixture[0].iterate.iteration",
        "pi_3 is never sampled from: the last iteration, 3, starts from pi_2; write at most 2",
    ),
    # URIs.
    ({"spec.storage.url": "file:///tmp/store"}, "spec.storage.url", "write s3://bucket/prefix"),
    ({"spec.storage.url": "s3://B/x"}, "spec.storage.url", "'B' is no name of a bucket"),
    ({"spec.policy.model.uri": "file://models/x"}, "spec.policy.model.uri", "write file:///… (three slashes), as file:///models/x"),
    ({"spec.policy.model.uri": "hf://x"}, "spec.policy.model.uri", "write hf://owner/name"),
    ({"spec.policy.model.uri": "hf://a/b{iteration}"}, "spec.policy.model.uri", "only spec.prompts.source.uri may use {iteration}"),
    ({"spec.prompts.source.uri": "hf://a/b-{iter}"}, "spec.prompts.source.uri", "write {iteration}, the one placeholder there is"),
    ({"spec.prompts.test": {"source": {"uri": "hf://a/b-{iteration}"}}}, "spec.prompts.test.source.uri", "has no meaning here"),
    (
        {"spec.policy.model": {"uri": "file:///m", "revision": "main"}},
        "spec.policy.model.revision",
        "only a model or data set of a hub has this; remove revision",
    ),
    # Pods.
    (pod(env=[{"name": "PET_NNODES", "value": "1"}]), "spec.sample.pod.env[0].name", "PET_… is reserved"),
    (pod(env=[{"name": "AWS_REGION", "value": "x"}]), "spec.sample.pod.env[0].name", "give S3 credentials in storage.credentials"),
    (pod(labels={"rlhf.dev/run": "x"}), 'spec.sample.pod.labels["rlhf.dev/run"]', "the key is reserved"),
    (pod(labels={"app.kubernetes.io/name": "x"}), 'spec.sample.pod.labels["app.kubernetes.io/name"]', "the key is reserved"),
    (pod(annotations={"kueue.x-k8s.io/x": "y"}), 'spec.sample.pod.annotations["kueue.x-k8s.io/x"]', "the key is reserved"),
    (pod(labels={"a b": "x"}), 'spec.sample.pod.labels["a b"]', "the key has the wrong form"),
    (pod(labels={"a": "x y"}), "spec.sample.pod.labels.a", "not a label's value"),
    (pod(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "spec.sample.pod.volumeMounts[0].name", "no volume has this name"),
    (mounted(name="w"), "spec.sample.pod.volumeMounts[0].name", "no volume has this name; there are v"),
    (mounted(mountPath="/dev/shm"), "spec.sample.pod.volumeMounts[0].mountPath", "something else is mounted here"),
    (mounted(mountPath="/proc/1"), "spec.sample.pod.volumeMounts[0].mountPath", "something else is mounted here"),
    (mounted(mountPath="/etc"), "spec.sample.pod.volumeMounts[0].mountPath", "something else is mounted here, or below it"),
    (mounted(mountPath="/etc//rlhf"), "spec.sample.pod.volumeMounts[0].mountPath", "write /etc/rlhf"),
    (mounted(mountPath="/data/"), "spec.sample.pod.volumeMounts[0].mountPath", "write /data"),
    (mounted(mountPath="//"), "spec.sample.pod.volumeMounts[0].mountPath", "write /"),
    (mounted(mountPath="/etc/rlhf/x"), "spec.sample.pod.volumeMounts[0].mountPath", "mount it elsewhere"),
    (mounted(subPath="a/../../b"), "spec.sample.pod.volumeMounts[0].subPath", "leads out of the volume"),
    (
        pod(volumes=[{"name": "v", "emptyDir": {}}], volumeMounts=[{"name": "v", "mountPath": "/a"}] * 2),
        "spec.sample.pod.volumeMounts[1].mountPath",
        "another volume is mounted here",
    ),
    (
        pod(resources={"limits": {"memory": "1Gi"}, "requests": {"memory": "1500M"}}),
        "spec.sample.pod.resources.requests.memory",
        '"1500M": above the limit, 1Gi',
    ),
    (
        pod(resources={"requests": {"nvidia.com/gpu": 1}}),
        'spec.sample.pod.resources.requests["nvidia.com/gpu"]',
        "GPUs are given by limits",
    ),
    (pod(**limits("500m")), 'spec.sample.pod.resources.limits["nvidia.com/gpu"]', "GPUs are whole"),
    (
        {"spec.sample.engine.tensorParallelSize": 2, "spec.sample.pod": limits(1)},
        "spec.sample.engine.tensorParallelSize",
        "more than the 1 GPUs of the pod",
    ),
    (
        {"spec.sample.engine.tensorParallelSize": 2, "spec.podDefaults": limits(2), "spec.evaluate.pod": limits(1)},
        'spec.evaluate.pod.resources.limits["nvidia.com/gpu"]',
        "evaluate samples with sample's engine, on 2 GPUs; write at least 2",
    ),
    (
        {"spec.sample.engine.tensorParallelSize": 2, "spec.podDefaults": limits(1), "spec.sample.pod": limits(2)},
        'spec.podDefaults.resources.limits["nvidia.com/gpu"]',
        "evaluate samples with sample's engine, on 2 GPUs",
    ),
    *(
        (
            {"spec.sample.engine.extraArgs": ["--max-num-seqs=8", argument]},
            "spec.sample.engine.extraArgs[1]",
            "known to change no answer",
        )
        for argument in (
            "--quantization=fp8",
            "--kv_cache_dtype=fp8",
            "--hf-overrides={}",
            "--watermark-config={}",
            "max-num-seqs=1",
            "--",
        )
    ),
    (
        {"spec.train.compute.processesPerNode": 8, "spec.podDefaults": limits(4)},
        "spec.train.compute.processesPerNode",
        "write at most 4",
    ),
]


@pytest.mark.parametrize(
    ("changes", "path", "said"), REFUSED, ids=[f"{path}-{index}" for index, (_, path, _) in enumerate(REFUSED)]
)
def test_what_does_not_fit_together_is_refused_at_the_field_to_change(changes: dict[str, Any], path: str, said: str) -> None:
    (problem,) = problems(changes)
    assert problem.path == path
    assert said in str(problem)
    assert problem.right


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_what_fits_together_is_accepted(changes: dict[str, Any]) -> None:
    checked = validate(manifest(changes))
    assert [str(problem) for problem in checked.problems] == []
    assert checked.ok


def test_a_local_run_may_keep_its_store_in_a_folder() -> None:
    assert paths({"spec.storage.url": "file:///tmp/store"}, local=True) == []


def test_a_local_run_has_no_config_map_with_certificates_and_is_told_of_the_variable() -> None:
    store = {"url": "s3://bucket/small", "caBundle": {"name": "certificates", "key": "ca.pem"}}
    assert paths({"spec.storage": store}) == []
    (problem,) = problems({"spec.storage": store}, local=True)
    assert problem.path == "spec.storage.caBundle"
    assert "AWS_CA_BUNDLE" in problem.right
    (alone,) = paths({"spec.storage": {**store, "url": "file:///tmp/store"}}, local=True)
    assert alone == "spec.storage.caBundle"


def test_a_folder_has_no_endpoint_and_no_region() -> None:
    store = {"url": "file:///tmp/store", "endpointURL": "https://s3.example.com", "region": "x"}
    assert paths({"spec.storage": store}, local=True) == ["spec.storage.endpointURL", "spec.storage.region"]


def test_a_pairwise_judge_has_no_mean_score() -> None:
    judge = {"type": "Pairwise", "pairwise": {"model": {"uri": "hf://a/b"}}}
    found = validate(manifest({"spec.evaluate.judge": judge, "spec.gates": [gate(metric="judgeMean", min=0)]}))
    assert [problem.path for problem in found.invalid] == ["spec.gates[0].metric"]


def test_engine_arguments_that_are_free_are_vllms() -> None:
    """Read from its source: importing it takes half a minute."""
    package = importlib.util.find_spec("vllm")
    assert package is not None
    [folder] = package.submodule_search_locations or []
    tree = ast.parse(Path(folder, "engine", "arg_utils.py").read_text())
    [arguments] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "EngineArgs"]
    fields = {node.target.id for node in arguments.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    assert {name.replace("-", "_") for name in FREE_ENGINE_ARGUMENTS} <= fields
