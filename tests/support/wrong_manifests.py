"""Wrong manifests: what is changed in a right one, where our own validation finds it, and what the API server says of it."""

from __future__ import annotations

from typing import Any

from .manifests import ANSWERED, ASKED, DATA, MATCHED, RULE, SERVED, TRAINED, gate, pod
from .wrong_pods import PODS
from .wrong_shapes import DUPLICATES, NUMBERS, SHAPES, TEXTS, UNKNOWN, Wrong, mixture

MODEL = {"uri": "hf://owner/model"}
_RANKS = "globalBatchSize must be a multiple of the ranks: compute.nodes times compute.processesPerNode"
_SHARDS = "there are not so many shards; lower parallelism, or raise shards"
_NO_ORDER = "iterates, pi_0 among them, have no order by it; write one of winRateVsInitial, "
_SHARE = "the metric is a share; write a number from 0 to 1, as 0.45 for 45 %"
_NO_MEAN = "Pairwise, Judge and Human labelers give no score that has a mean"
_NO_GATE = "an approval names a gate that there is not, or one that does not pause; write the name of a gate with action Pause"

ARC = {"task": "arc_easy", "metric": "acc"}
UNIONS = [
    Wrong(
        {"spec.reward": {"type": "BradleyTery", "bradleyTerry": {"model": MODEL}}},
        "spec.reward.type",
        'supported values: "BradleyTerry", "Pairwise", "MultiObjective", "Rule", "Judge", "Human"',
    ),
    Wrong({"spec.reward": {"bradleyTerry": {"model": MODEL}}}, "spec.reward.type", "Required value"),
    Wrong(
        {"spec.reward": {"type": "BradleyTerry"}},
        "spec.reward.bradleyTerry",
        "bradleyTerry is required with type BradleyTerry, and belongs to no other",
    ),
    Wrong(
        {"spec.reward": {"type": "BradleyTerry", "rule": {"entryPoint": "a:b"}}},
        "spec.reward.bradleyTerry",
        "bradleyTerry is required with type BradleyTerry, and belongs to no other",
    ),
    Wrong(
        {"spec.reward": {**TRAINED, "rule": {"entryPoint": "a:b"}}},
        "spec.reward.rule",
        "rule is required with type Rule, and belongs to no other",
    ),
    Wrong({"spec.reward": {"type": "Human"}}, "spec.reward.human", "human is required with type Human, and belongs to no other"),
    Wrong(
        {"spec.reward": {"type": "Human", "human": {}, "rule": {"entryPoint": "a:b"}}},
        "spec.reward.rule",
        "rule is required with type Rule, and belongs to no other",
    ),
    Wrong(
        {"spec.evaluate.judge": {"type": "Judge", "pairwise": {"model": MODEL}}},
        "spec.evaluate.judge.pairwise",
        "pairwise is required with type Pairwise, and belongs to no other",
    ),
    Wrong(
        {"spec.reward": {"type": "Rule", "rule": {}}},
        "spec.reward.rule",
        "give exactly one of entryPoint, regex, exactMatch, numericAnswer and jsonSchema",
    ),
    Wrong(
        {"spec.evaluate.judge.rule.regex": {"pattern": "a"}},
        "spec.evaluate.judge.rule",
        "give exactly one of entryPoint, regex, exactMatch, numericAnswer and jsonSchema",
    ),
    Wrong({"spec.reward": {"type": "Judge", "judge": {}}}, "spec.reward.judge", "give exactly one of model and endpoint"),
    Wrong(
        {"spec.evaluate.judge": SERVED, "spec.evaluate.judge.judge.model": MODEL},
        "spec.evaluate.judge.judge",
        "give exactly one of model and endpoint",
    ),
    Wrong(
        {"spec.evaluate.judge": SERVED, "spec.reward": SERVED},
        "spec.evaluate.judge.judge.endpoint.model",
        "the judge is the training reward; name another judge, or write allowTrainingReward: true",
        "spec.evaluate.judge",
    ),
    Wrong(
        {"spec.evaluate.judge": SERVED, "spec.gates": [gate(metric="judgeMean", max=0.5)]},
        "spec.gates[0].metric",
        f"{_NO_MEAN}; selection or a gate uses judgeMean: name another metric there",
        "spec.evaluate.judge.type",
    ),
    Wrong({"spec.reward.bradleyTerry": {}}, "spec.reward.bradleyTerry", "give exactly one of model and train"),
    Wrong(
        {"spec.reward.bradleyTerry": {"model": MODEL, "train": {"data": DATA}}},
        "spec.reward.bradleyTerry",
        "give exactly one of model and train",
    ),
    Wrong({"spec.reward": {"type": "Pairwise", "pairwise": {}}}, "spec.reward.pairwise", "give exactly one of model and train"),
    Wrong(
        {"spec.reward.bradleyTerry": {"train": {"data": DATA, "heldOut": {"size": 3, "fraction": 0.1}}}},
        "spec.reward.bradleyTerry.train.heldOut",
        "give exactly one of fraction, size and data",
    ),
    Wrong(
        {"spec.policy.chatTemplate": {}}, "spec.policy.chatTemplate", "give at least one of name, inline, configMapKeyRef and date"
    ),
    Wrong(
        {"spec.policy.chatTemplate": {"name": "Llama3", "inline": "x"}},
        "spec.policy.chatTemplate",
        "give at most one of name, inline and configMapKeyRef",
    ),
    Wrong(
        {"spec.storage.credentials": {"secretRef": {"name": "a"}, "serviceAccountName": "b"}},
        "spec.storage.credentials",
        "give at most one of secretRef and serviceAccountName",
    ),
    Wrong({"spec.prompts.validation": {}}, "spec.prompts.validation", "give at least one of size, fraction and source"),
    Wrong(
        {"spec.prompts.validation": {"size": 3, "fraction": 0.1}},
        "spec.prompts.validation",
        "give at most one of size and fraction",
    ),
    Wrong(
        {"spec.podDefaults": {"volumes": [{"name": "v"}]}},
        "spec.podDefaults.volumes[0]",
        "give exactly one of persistentVolumeClaim, emptyDir and configMap",
    ),
    Wrong(
        {"spec.podDefaults": {"volumes": [{"name": "v", "emptyDir": {}, "configMap": {"name": "c"}}]}},
        "spec.podDefaults.volumes[0]",
        "give exactly one of persistentVolumeClaim, emptyDir and configMap",
    ),
    Wrong({"spec.gates": [gate()]}, "spec.gates[0]", "give exactly one of min, max, plateau and maxDrop"),
    Wrong(
        {"spec.gates": [{"name": "g", "min": 1, "action": "Stop"}]},
        "spec.gates[0]",
        "give exactly one of metric and benchmark",
    ),
    Wrong(
        {"spec.gates": [gate(benchmark=ARC, min=1)], "spec.evaluate.lmEval": {"tasks": ["arc_easy"]}},
        "spec.gates[0]",
        "give exactly one of metric and benchmark",
    ),
    Wrong({"spec.gates": [gate(maxDrop=0.1)]}, "spec.gates[0]", "give at most one of metric and maxDrop"),
    Wrong({"spec.gates": [gate(min=1, max=2)]}, "spec.gates[0]", "give exactly one of min, max, plateau and maxDrop"),
    Wrong(
        mixture(iterate={"type": "Number"}),
        "spec.sample.mixture[0].iterate.iteration",
        "iteration is required with type Number, and belongs to no other",
    ),
    Wrong(
        mixture(iterate={"iteration": 1}),
        "spec.sample.mixture[0].iterate.iteration",
        "iteration is required with type Number, and belongs to no other",
    ),
    Wrong(
        {"spec.reference": {"type": "Model"}}, "spec.reference.model", "model is required with type Model, and belongs to no other"
    ),
    Wrong(
        {"spec.reference": {"model": MODEL}}, "spec.reference.model", "model is required with type Model, and belongs to no other"
    ),
    Wrong(
        {"spec.train.data": {"replay": "Window"}},
        "spec.train.data.window",
        "window is required with replay Window, and belongs to no other",
    ),
    Wrong(
        {"spec.train.data": {"window": 2}},
        "spec.train.data.window",
        "window is required with replay Window, and belongs to no other",
    ),
    Wrong(
        {"spec.train.loss": {"average": "Sum"}}, "spec.train.loss.average", "average belongs to type IPO; remove it, or change type"
    ),
    Wrong({"spec.train.loss": {"gamma": 1}}, "spec.train.loss.gamma", "gamma belongs to type SimPO; remove it, or change type"),
    Wrong(
        {"spec.train.loss": {"labelSmoothing": 0.1}},
        "spec.train.loss.labelSmoothing",
        "labelSmoothing belongs to type CDPO or Robust; remove it, or change type",
    ),
]

FITTING = [
    Wrong({"spec.train.compute": {"nodes": 2, "processesPerNode": 3}}, "spec.train.optimization.globalBatchSize", _RANKS),
    Wrong({"spec.sft": {"data": DATA, "compute": {"processesPerNode": 3}}}, "spec.sft.optimization.globalBatchSize", _RANKS),
    Wrong(
        {"spec.reward": {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": DATA, "compute": {"processesPerNode": 3}}}}},
        "spec.reward.bradleyTerry.train.optimization.globalBatchSize",
        _RANKS,
    ),
    Wrong(
        {"spec.train.maxLength": 1000},
        "spec.train.maxPromptLength",
        "the prompt leaves no token for the response; write less than maxLength",
    ),
    Wrong(
        {"spec.train.tokenBudget": 100}, "spec.train.tokenBudget", "less than one row; write at least maxLength, or leave it out"
    ),
    Wrong(
        {"spec.train.compute": {"deepspeed": {"offload": "All"}}},
        "spec.train.compute.deepspeed.offload",
        "Optimizer needs zeroStage 1 or more, All needs zeroStage 3",
    ),
    Wrong(
        {"spec.train.compute": {"deepspeed": {"offload": "Optimizer", "zeroStage": 0}}},
        "spec.train.compute.deepspeed.offload",
        "Optimizer needs zeroStage 1 or more, All needs zeroStage 3",
    ),
    Wrong({"spec.sample.parallelism": 2}, "spec.sample.parallelism", _SHARDS),
    Wrong({"spec.label.parallelism": 2}, "spec.label.parallelism", _SHARDS),
    Wrong({"spec.reference.parallelism": 2}, "spec.reference.parallelism", _SHARDS),
    Wrong(
        mixture(iterate={"type": "Number", "iteration": 3}),
        "spec.sample.mixture[0].iterate.iteration",
        "an entry names an iterate that is never sampled from; write an iteration less than spec.iterations",
        "spec.sample.mixture",
    ),
    Wrong(
        {"spec.policy.model": {"uri": "file:///m", "revision": "main"}},
        "spec.policy.model.revision",
        "only a model or data set of a hub has revision and credentials; remove them",
        "spec.policy.model",
    ),
    Wrong(
        {"spec.prompts.source": {"uri": "s3://bucket/x", "credentials": {"secretRef": {"name": "token"}}}},
        "spec.prompts.source.credentials",
        "only a model or data set of a hub has revision and credentials; remove them",
        "spec.prompts.source",
    ),
    Wrong(
        {"spec.prompts.source": {"uri": "s3://bucket/x", "config": "main"}},
        "spec.prompts.source.config",
        "only a data set of a hub has configurations; remove config",
    ),
    Wrong(
        {"spec.prompts.validation": {"size": 0}},
        "spec.prompts.validation.size",
        "selection and gates need prompts; write at least 1",
    ),
    Wrong(
        {"spec.prompts.validation": {"fraction": 0.5}, "spec.prompts.test": {"fraction": 0.5}},
        "spec.prompts.test.fraction",
        "all prompts are held out; write fractions for test and validation whose sum is below 1",
    ),
    Wrong(
        {"spec.evaluate.judge": TRAINED},
        "spec.evaluate.judge.bradleyTerry.model.uri",
        "the judge is the training reward; name another judge, or write allowTrainingReward: true",
        "spec.evaluate.judge",
    ),
    Wrong(
        {"spec.reward": RULE},
        "spec.evaluate.judge.rule.entryPoint",
        "the judge is the training reward; name another judge, or write allowTrainingReward: true",
        "spec.evaluate.judge",
    ),
    Wrong({"spec.selection.metric": "winRateVsPrevious"}, "spec.selection.metric", _NO_ORDER),
    Wrong({"spec.selection.metric": "trainLoss"}, "spec.selection.metric", _NO_ORDER),
    Wrong(
        {"spec.evaluate.against": ["Previous"]},
        "spec.selection.metric",
        "selection or a gate compares with Initial; add Initial here, or name another metric there",
        "spec.evaluate.against",
    ),
    Wrong(
        {"spec.evaluate.against": ["Initial"], "spec.gates": [gate(metric="winRateVsPrevious", min=0.4)]},
        "spec.gates[0].metric",
        "selection or a gate compares with Previous; add Previous here, or name another metric there",
        "spec.evaluate.against",
    ),
    Wrong(
        {
            "spec.evaluate.judge": {"type": "Pairwise", "pairwise": {"model": MODEL}},
            "spec.gates": [gate(metric="judgeMean", min=0)],
        },
        "spec.gates[0].metric",
        f"{_NO_MEAN}; selection or a gate uses judgeMean: name another metric there",
        "spec.evaluate.judge.type",
    ),
    Wrong(
        {"spec.reward": {"type": "Pairwise", "pairwise": {"model": MODEL}}, "spec.selection": {"metric": "rewardMean"}},
        "spec.selection.metric",
        f"{_NO_MEAN}; selection or a gate uses rewardMean: name another metric there",
        "spec.reward.type",
    ),
    Wrong({"spec.gates": [gate(metric="winRateVsInitial", min=45)]}, "spec.gates[0].min", _SHARE),
    Wrong({"spec.gates": [gate(metric="clippedShare", max=-1)]}, "spec.gates[0].max", _SHARE),
    Wrong(
        {"spec.annotations": [{"iteration": 1, "digest": "a" * 64}]},
        "spec.annotations[0]",
        "annotations are answers of people; remove them, or let reward be of type Human",
        "spec.annotations",
    ),
    Wrong(
        {"spec.reward": {"type": "Human", "human": {}}, "spec.annotations": [{"iteration": 4, "digest": "a" * 64}]},
        "spec.annotations[0].iteration",
        "annotations are of an iteration that there is not; write 1 to spec.iterations",
        "spec.annotations",
    ),
    Wrong(
        {"spec.reward": {"type": "Human", "human": {"pairsPerPrompt": 4}}, "spec.sample": {"completionsPerPrompt": 3}},
        "spec.reward.human.pairsPerPrompt",
        "more pairs than the completions of a prompt make; write at most n (n - 1) / 2 of sample.completionsPerPrompt",
    ),
    Wrong({"spec.approvals": [{"gate": "g", "iteration": 1}]}, "spec.approvals[0].gate", _NO_GATE, "spec.approvals"),
    Wrong(
        {"spec.gates": [gate(max=1)], "spec.approvals": [{"gate": "g", "iteration": 1}]},
        "spec.approvals[0].gate",
        _NO_GATE,
        "spec.approvals",
    ),
    *(
        Wrong(
            {"spec.gates": [gate(max=1, action="Pause")], "spec.approvals": [{"gate": "g", "iteration": iteration}]},
            "spec.approvals[0].iteration",
            "an approval is of an iteration that there is not; write 1 to spec.iterations",
            "spec.approvals",
        )
        for iteration in (0, 4)
    ),
]

WRONG = [*SHAPES, *UNKNOWN, *NUMBERS, *TEXTS, *DUPLICATES, *UNIONS, *FITTING, *PODS]

#: What our own validation refuses, and the API server does not know: by the name of the rule (rlhf_api.validation.check.RULES).
#: `rlhfctl validate` and `submit` refuse it before it is sent; applied with kubectl, the run ends Failed with ConfigurationError.
ONLY_OURS: dict[str, list[dict[str, Any]]] = {
    "held_out_pairs_have_a_name_of_their_own": [
        {"spec.reward": {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": DATA, "heldOut": {"data": DATA[0]}}}}},
    ],
    "gates_read_benchmarks_that_are_asked": [
        {"spec.gates": [{"name": "g", "benchmark": ARC, "min": 0.1, "action": "Stop"}]},
        {
            "spec.gates": [{"name": "g", "benchmark": ARC, "min": 0.1, "action": "Stop"}],
            "spec.evaluate.lmEval": {"tasks": ["arc_eazy"]},
        },
        {
            "spec.gates": [{"name": "g", "benchmark": {**ARC, "metric": "acc,none"}, "min": 0.1, "action": "Stop"}],
            "spec.evaluate.lmEval": {"tasks": ["arc_easy"]},
        },
    ],
    "benchmark_bounds_fit_the_unit": [
        {
            "spec.gates": [{"name": "g", "benchmark": ARC, field: 30, "action": "Stop"}],
            "spec.evaluate.lmEval": {"tasks": ["arc_easy"]},
        }
        for field in ("min", "max", "maxDrop")
    ],
    "gates_look_at_iterations": [{"spec.gates": [gate(metric="heldOutRewardAccuracy", min=0.6)]}],
    # Schemas of Kubernetes have no names of keys in a map.
    "keys of resources": [pod(resources={"limits": {"-x": 1}})],
    "judge_is_independent": [
        {"spec.evaluate.judge": {"type": "BradleyTerry", "bradleyTerry": {"model": {**MODEL, "base": "owner/reward"}}}},
        {"spec.evaluate.judge": MATCHED, "spec.reward": MATCHED},
    ],
    "judge_prompts_are_whole": [{"spec.evaluate.judge": SERVED, "spec.evaluate.judge.judge.prompt": "{prompt} {responseA}"}],
    "gated_models_are_read_without_their_code": [
        {"spec.reward": {"type": "MultiObjective", "multiObjective": {"model": {**MODEL, "trustRemoteCode": True}}}},
    ],
    "answers_are_named": [{"spec.reward": ANSWERED}, {"spec.evaluate.judge": ANSWERED}],
    "answers_are_not_asked": [{"spec.prompts.source": {**ASKED, "column": "answer"}}],
    "pairing_can_be_met": [{"spec.reward": MATCHED, "spec.label.pairing": {"minRewardStd": 0.5}}],
    "people_choose_the_pairs": [
        {"spec.reward": {"type": "Human", "human": {}}, "spec.label": {"lengthPenaltyPerCharacter": 0.001}},
        {"spec.reward": {"type": "Human", "human": {}}, "spec.label.pairing": {"strategy": "BestRandom"}},
    ],
    "every_entry_samples": [{"spec.sample.mixture": [{"name": "a", "weight": 100.0}, {"name": "b", "weight": 1.0}]}],
    "greedy_entries_answer_once": [mixture(temperature=0), mixture(topK=1)],
    "engine_arguments_change_no_answer": [{"spec.sample.engine.extraArgs": ["--quantization=fp8"]}],
    "placeholders": [{"spec.policy.model.uri": "hf://a/b{iteration}"}, {"spec.prompts.source.uri": "hf://a/b-{iter}"}],
    "labels_are_free": [pod(labels={"a b": "x"}), pod(labels={"a": "x y"}), pod(nodeSelector={"a": "x y"})],
    "mounts_have_volumes": [pod(volumeMounts=[{"name": "v", "mountPath": "/v"}])],
    "mount_paths_differ": [
        pod(
            volumes=[{"name": "v", "emptyDir": {}}],
            volumeMounts=[{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}],
        )
    ],
    "requests_within_limits": [
        pod(resources={"limits": {"memory": "1Gi"}, "requests": {"memory": "1500M"}}),
        pod(resources={"requests": {"nvidia.com/gpu": 1}}),
        pod(resources={"limits": {"nvidia.com/gpu": "500m"}}),
    ],
    "ranks_have_gpus": [{"spec.sample.engine.tensorParallelSize": 2, **pod(resources={"limits": {"nvidia.com/gpu": 1}})}],
}
