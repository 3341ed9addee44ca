"""Wrong manifests: what is changed in a right one, where our own validation finds it, and what the API server says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .manifests import GONE

MODEL = {"uri": "hf://owner/model"}
DATA = [{"name": "a", "uri": "hf://owner/data"}]
RULE = {"type": "Rule", "rule": {"entryPoint": "grades:judge"}}
TRAINED = {"type": "BradleyTerry", "bradleyTerry": {"model": {"uri": "hf://owner/reward"}}}
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"should match '^{_LABEL}(\.{_LABEL})*$'"
_QUANTITY = "should match '^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$'"
_URI = "write hf://owner/name, s3://bucket/path or file:///folder (three slashes)"
_STORE = "write s3://bucket/prefix, without / at the end; a folder is no store, for pods on other nodes do not see it"
_RANKS = "globalBatchSize must be a multiple of the ranks: compute.nodes times compute.processesPerNode"
_SHARDS = "there are not so many shards; lower parallelism, or raise shards"
_NO_ORDER = "iterates, pi_0 among them, have no order by it; write one of winRateVsInitial, "
_SHARE = "the metric is a share; write a number from 0 to 1, as 0.45 for 45 %"
_NO_GATE = "an approval names a gate that there is not, or one that does not pause; write the name of a gate with action Pause"
_RESERVED_KEY = "a key is reserved, as rlhf.dev/… and app.kubernetes.io/… are; use a domain of your own before the slash"
_RESERVED_VARIABLE = (
    "reserved, as all that begin with PET_, LD_, PYTHON, RLHF_, JOB_COMPLETION_INDEX, AWS_; "
    "S3 credentials go into storage.credentials"
)
_RUN_NAME = "the name must be an RFC 1035 label: at most 63 small letters, digits and -, a letter first and no - at the end"


@dataclass(frozen=True)
class Wrong:
    changes: dict[str, Any]
    """Of support.manifests.manifest."""
    path: str
    """Where our own validation finds a problem, by the one of our messages that matters."""
    said: str
    """By the API server, after the place."""
    at: str | None = None
    """The place that the API server names, where that is another one."""

    @property
    def place(self) -> str:
        return self.path if self.at is None else self.at

    @property
    def name(self) -> str:
        return f"{self.path}: {self.said[:20]}"


def gate(**fields: Any) -> dict[str, Any]:
    return {"name": "g", "metric": "rewardMean", "action": "Stop", **fields}


def pod(**fields: Any) -> dict[str, Any]:
    return {"spec.sample.pod": fields}


def mounted(**fields: Any) -> dict[str, Any]:
    return pod(volumes=[{"name": "v", "emptyDir": {}}], volumeMounts=[{"name": "v", "mountPath": "/data", **fields}])


def mixture(**fields: Any) -> dict[str, Any]:
    return {"spec.sample.mixture": [{"name": "a", **fields}]}


SHAPES = [
    Wrong({"spec": GONE}, "spec", "Required value"),
    Wrong({"spec": {}}, "spec.evaluate", "Required value"),
    Wrong({"spec.storage.url": GONE}, "spec.storage.url", "Required value"),
    Wrong({"spec.storage": None}, "spec.storage", "Required value"),
    Wrong({"spec.iterations": "3"}, "spec.iterations", "must be of type integer"),
    Wrong({"spec.iterations": 2.5}, "spec.iterations", "must be of type integer"),
    Wrong({"spec.suspend": "yes"}, "spec.suspend", "must be of type boolean"),
    Wrong({"spec.image": 3}, "spec.image", "must be of type string"),
    Wrong({"spec.image": ""}, "spec.image", "should be at least 1 chars long"),
    Wrong({"spec.gates": {}}, "spec.gates", "must be of type array"),
    Wrong({"spec.train": []}, "spec.train", "must be of type object"),
    Wrong({"spec.train.loss": {"beta": True}}, "spec.train.loss.beta", "must be of type number"),
    Wrong({"spec.gates": [3]}, "spec.gates[0]", "must be of type object"),
    Wrong(mixture(temperature=1) | {"spec.sample.mixture": [{"weight": 1}]}, "spec.sample.mixture[0].name", "Required value"),
    Wrong({"spec.sft": {}}, "spec.sft.data", "Required value"),
    Wrong({"spec.sft": {"data": []}}, "spec.sft.data", "should have at least 1 items"),
    Wrong({"spec.sample.mixture": []}, "spec.sample.mixture", "should have at least 1 items"),
    Wrong({"spec.evaluate.against": []}, "spec.evaluate.against", "should have at least 1 items"),
    Wrong({"spec.gates": [gate(name=f"g{n}", max=1) for n in range(17)]}, "spec.gates", "must have at most 16 items"),
    Wrong({"spec.approvals": [{"gate": "g"}]}, "spec.approvals[0].iteration", "Required value"),
    Wrong(pod(env=[{"name": "A", "value": 1}]), "spec.sample.pod.env[0].value", "must be of type string"),
    Wrong(pod(resources={"limits": {"cpu": 1.5}}), "spec.sample.pod.resources.limits.cpu", "must be of type integer,string"),
    Wrong(pod(shmSize=16), "spec.sample.pod.shmSize", "must be of type string"),
]

UNKNOWN = [
    Wrong({"spec.trian": {}}, "spec.trian", 'unknown field "spec.trian"'),
    Wrong({"spec.pod_defaults": {}}, "spec.pod_defaults", 'unknown field "spec.pod_defaults"'),
    Wrong(
        {"spec.train.optimization.learning_rate": 1e-6},
        "spec.train.optimization.learning_rate",
        'unknown field "spec.train.optimization.learning_rate"',
    ),
    Wrong({"spec.storage.endpointUrl": "https://x"}, "spec.storage.endpointUrl", 'unknown field "spec.storage.endpointUrl"'),
    Wrong(pod(hostPath="/"), "spec.sample.pod.hostPath", 'unknown field "spec.sample.pod.hostPath"'),
    Wrong(
        pod(securityContext={"privileged": True}),
        "spec.sample.pod.securityContext",
        'unknown field "spec.sample.pod.securityContext"',
    ),
    Wrong(
        {"spec.podDefaults": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}},
        "spec.podDefaults.volumes[0].hostPath",
        'unknown field "spec.podDefaults.volumes[0].hostPath"',
    ),
    Wrong(
        pod(env=[{"name": "A", "value": "x", "valueFrom": {}}]),
        "spec.sample.pod.env[0].valueFrom",
        'unknown field "spec.sample.pod.env[0].valueFrom"',
    ),
    Wrong(
        {"spec.storage.credentials": {"accessKey": "x"}},
        "spec.storage.credentials.accessKey",
        'unknown field "spec.storage.credentials.accessKey"',
    ),
    Wrong({"apiVersion": "rlhf.dev/v1"}, "apiVersion", 'RLHFRun in version "v1" cannot be handled'),
    Wrong({"kind": "RLHFrun"}, "kind", "must be RLHFRun"),
    Wrong({"kind": GONE}, "kind", "Object 'Kind' is missing"),
]

NUMBERS = [
    Wrong({"spec.iterations": 51}, "spec.iterations", "should be less than or equal to 50"),
    Wrong({"spec.iterations": 0}, "spec.iterations", "should be greater than or equal to 1"),
    Wrong({"spec.iterations": -1}, "spec.iterations", "should be greater than or equal to 1"),
    Wrong({"spec.seed": -1}, "spec.seed", "should be greater than or equal to 0"),
    Wrong({"spec.seed": 2**31}, "spec.seed", "should be less than or equal to 2147483647"),
    Wrong({"spec.seed": 10**30}, "spec.seed", "should be less than or equal to 2.147483647e+09"),
    Wrong({"spec.activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds", "should be greater than or equal to 1"),
    Wrong({"spec.pendingDeadlineSeconds": -5}, "spec.pendingDeadlineSeconds", "should be greater than or equal to 1"),
    Wrong({"spec.ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished", "should be greater than or equal to 0"),
    Wrong({"spec.retry": {"application": -1}}, "spec.retry.application", "should be greater than or equal to 0"),
    Wrong({"spec.prompts.perIteration": 0}, "spec.prompts.perIteration", "should be greater than or equal to 1"),
    Wrong({"spec.prompts.validation": {"fraction": 1.0}}, "spec.prompts.validation.fraction", "should be less than 1"),
    Wrong({"spec.prompts.validation": {"fraction": 0}}, "spec.prompts.validation.fraction", "should be greater than 0"),
    Wrong({"spec.sample.completionsPerPrompt": 1}, "spec.sample.completionsPerPrompt", "should be greater than or equal to 2"),
    Wrong({"spec.sample.maxNewTokens": 0}, "spec.sample.maxNewTokens", "should be greater than or equal to 1"),
    Wrong({"spec.sample.shards": 0}, "spec.sample.shards", "should be greater than or equal to 1"),
    Wrong({"spec.sample.shards": 1025}, "spec.sample.shards", "should be less than or equal to 1024"),
    Wrong(
        {"spec.sample.engine": {"gpuMemoryUtilization": 1.5}},
        "spec.sample.engine.gpuMemoryUtilization",
        "should be less than or equal to 1",
    ),
    Wrong(mixture(temperature=-1), "spec.sample.mixture[0].temperature", "should be greater than or equal to 0"),
    Wrong(mixture(topP=0), "spec.sample.mixture[0].topP", "should be greater than 0"),
    Wrong(mixture(weight=0), "spec.sample.mixture[0].weight", "should be greater than 0"),
    Wrong({"spec.label.minYield": 1.1}, "spec.label.minYield", "should be less than or equal to 1"),
    Wrong({"spec.train.loss": {"beta": 0}}, "spec.train.loss.beta", "should be greater than 0"),
    Wrong({"spec.train.loss": {"beta": -0.1}}, "spec.train.loss.beta", "should be greater than 0"),
    Wrong(
        {"spec.train.loss": {"type": "CDPO", "labelSmoothing": 0.5}}, "spec.train.loss.labelSmoothing", "should be less than 0.5"
    ),
    Wrong({"spec.train.data": {"replay": "Window", "window": 0}}, "spec.train.data.window", "should be greater than or equal to 1"),
    Wrong({"spec.train.optimization": {"learningRate": 0}}, "spec.train.optimization.learningRate", "should be greater than 0"),
    Wrong({"spec.train.optimization": {"epochs": -1}}, "spec.train.optimization.epochs", "should be greater than 0"),
    Wrong(
        {"spec.train.optimization": {"globalBatchSize": 0}},
        "spec.train.optimization.globalBatchSize",
        "should be greater than or equal to 1",
    ),
    Wrong(
        {"spec.train.optimization": {"warmupRatio": 2}}, "spec.train.optimization.warmupRatio", "should be less than or equal to 1"
    ),
    Wrong({"spec.train.compute": {"nodes": 0}}, "spec.train.compute.nodes", "should be greater than or equal to 1"),
    Wrong(
        {"spec.train.compute": {"processesPerNode": -8}},
        "spec.train.compute.processesPerNode",
        "should be greater than or equal to 1",
    ),
    Wrong(
        {"spec.train.compute": {"deepspeed": {"zeroStage": 4}}},
        "spec.train.compute.deepspeed.zeroStage",
        "should be less than or equal to 3",
    ),
    Wrong(
        {"spec.gates": [gate(plateau={"iterations": 0, "minDelta": 0.1})]},
        "spec.gates[0].plateau.iterations",
        "should be greater than or equal to 1",
    ),
    Wrong(
        {"spec.gates": [gate(plateau={"iterations": 2, "minDelta": 0})]},
        "spec.gates[0].plateau.minDelta",
        "should be greater than 0",
    ),
    Wrong(
        pod(terminationGracePeriodSeconds=-1),
        "spec.sample.pod.terminationGracePeriodSeconds",
        "should be greater than or equal to 0",
    ),
    Wrong(pod(resources={"limits": {"cpu": -1}}), "spec.sample.pod.resources.limits.cpu", "should be greater than or equal to 0"),
]

TEXTS = [
    Wrong({"metadata.name": "x" * 64}, "metadata.name", _RUN_NAME),
    Wrong({"metadata.name": "a.b"}, "metadata.name", _RUN_NAME),
    Wrong({"metadata.name": "9a"}, "metadata.name", _RUN_NAME),
    Wrong({"metadata.name": "a-"}, "metadata.name", _RUN_NAME),
    Wrong({"metadata.name": "A_b"}, "metadata.name", _RUN_NAME),
    Wrong({"metadata.name": "läufe"}, "metadata.name", _RUN_NAME),
    Wrong({"spec.storage.url": "bucket/prefix"}, "spec.storage.url", _STORE),
    Wrong({"spec.storage.url": "s3://bucket/prefix/"}, "spec.storage.url", _STORE),
    Wrong({"spec.storage.url": "s3://Bucket/x"}, "spec.storage.url", _STORE),
    Wrong({"spec.storage.url": "file:///tmp/store"}, "spec.storage.url", _STORE),
    Wrong({"spec.storage.url": "s3://bucket/" + "ü" * 1024}, "spec.storage.url", "Too long: may not be more than 1024"),
    Wrong({"spec.storage.endpointURL": "s3.example.com"}, "spec.storage.endpointURL", "should match '^https?://.+$'"),
    Wrong({"spec.policy.model.uri": "meta-llama/x"}, "spec.policy.model.uri", _URI),
    Wrong({"spec.policy.model.uri": "hf://x"}, "spec.policy.model.uri", _URI),
    Wrong({"spec.policy.model.uri": "hf://x/"}, "spec.policy.model.uri", _URI),
    Wrong({"spec.policy.model.uri": "hf://a/b/c"}, "spec.policy.model.uri", _URI),
    Wrong({"spec.policy.model.uri": "file://models/x"}, "spec.policy.model.uri", _URI),
    Wrong({"spec.policy.model.uri": "s3://B/x"}, "spec.policy.model.uri", _URI),
    Wrong({"spec.prompts.source.uri": "https://example.com/prompts"}, "spec.prompts.source.uri", _URI),
    Wrong({"spec.policy.dtype": "float16"}, "spec.policy.dtype", 'supported values: "bfloat16", "float32"'),
    Wrong(
        {"spec.policy.chatTemplate": {"name": "llama3"}}, "spec.policy.chatTemplate.name", 'supported values: "Llama3", "ChatML"'
    ),
    Wrong({"spec.imagePullPolicy": "always"}, "spec.imagePullPolicy", 'supported values: "Always", "IfNotPresent", "Never"'),
    Wrong({"spec.evaluate.against": ["Intial"]}, "spec.evaluate.against[0]", 'supported values: "Initial", "Previous"'),
    Wrong({"spec.gates": [gate(metric="winrate", max=1)]}, "spec.gates[0].metric", 'supported values: "winRateVsInitial", '),
    Wrong(
        {"spec.gates": [gate(action="Halt", max=1)]},
        "spec.gates[0].action",
        'supported values: "Warn", "Stop", "Pause", "Rollback"',
    ),
    Wrong({"spec.gates": [gate(name="G!", max=1)]}, "spec.gates[0].name", f"should match '^{_LABEL}$'"),
    Wrong({"spec.sample.mixture": [{"name": "größe"}]}, "spec.sample.mixture[0].name", f"should match '^{_LABEL}$'"),
    Wrong({"spec.sample.mixture": [{"name": "x" * 64}]}, "spec.sample.mixture[0].name", "Too long: may not be more than 63"),
    Wrong({"spec.storage.credentials": {"secretRef": {"name": "A b"}}}, "spec.storage.credentials.secretRef.name", _SUBDOMAIN),
    Wrong({"spec.queue": {"name": "A"}}, "spec.queue.name", _SUBDOMAIN),
    Wrong(
        {"spec.evaluate.judge": {"type": "Rule", "rule": {"entryPoint": "grades.judge"}}},
        "spec.evaluate.judge.rule.entryPoint",
        "should match '^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$'",
    ),
    Wrong(pod(env=[{"name": "A-B", "value": "x"}]), "spec.sample.pod.env[0].name", "should match '^[A-Za-z_][A-Za-z0-9_]*$'"),
    Wrong(pod(tolerations=[{"operator": "Like"}]), "spec.sample.pod.tolerations[0].operator", "should match '^(Exists|Equal)$'"),
    Wrong(pod(shmSize="16 GB"), "spec.sample.pod.shmSize", _QUANTITY),
    Wrong(pod(resources={"limits": {"memory": "lots"}}), "spec.sample.pod.resources.limits.memory", _QUANTITY),
    Wrong(pod(resources={"limits": {"cpu": "-1"}}), "spec.sample.pod.resources.limits.cpu", _QUANTITY),
    Wrong(mounted(mountPath="data"), "spec.sample.pod.volumeMounts[0].mountPath", "should match '^/.+$'"),
]

DUPLICATES = [
    Wrong(
        {"spec.sample.mixture": [{"name": "a"}, {"name": "a"}]},
        "spec.sample.mixture[1].name",
        'Duplicate value: {"name":"a"}',
        "spec.sample.mixture[1]",
    ),
    Wrong({"spec.gates": [gate(max=1), gate(min=1)]}, "spec.gates[1].name", 'Duplicate value: {"name":"g"}', "spec.gates[1]"),
    Wrong(
        pod(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        "spec.sample.pod.env[1].name",
        'Duplicate value: {"name":"A"}',
        "spec.sample.pod.env[1]",
    ),
    Wrong({"spec.evaluate.against": ["Initial", "Initial"]}, "spec.evaluate.against", "name each opponent once"),
]

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
    Wrong(
        {"spec.reward": {"type": "Human", "rule": {"entryPoint": "a:b"}}},
        "spec.reward.rule",
        "rule is required with type Rule, and belongs to no other",
    ),
    Wrong(
        {"spec.evaluate.judge": {"type": "Judge", "pairwise": {"model": MODEL}}},
        "spec.evaluate.judge.pairwise",
        "pairwise is required with type Pairwise, and belongs to no other",
    ),
    Wrong({"spec.reward.bradleyTerry": {}}, "spec.reward.bradleyTerry", "give exactly one of model and train"),
    Wrong(
        {"spec.reward.bradleyTerry": {"model": MODEL, "train": {"data": DATA}}},
        "spec.reward.bradleyTerry",
        "give exactly one of model and train",
    ),
    Wrong({"spec.policy.chatTemplate": {}}, "spec.policy.chatTemplate", "give exactly one of name, inline and configMapKeyRef"),
    Wrong(
        {"spec.policy.chatTemplate": {"name": "Llama3", "inline": "x"}},
        "spec.policy.chatTemplate",
        "give exactly one of name, inline and configMapKeyRef",
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
    Wrong({"spec.gates": [gate()]}, "spec.gates[0]", "give exactly one of min, max and plateau"),
    Wrong({"spec.gates": [gate(min=1, max=2)]}, "spec.gates[0]", "give exactly one of min, max and plateau"),
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
        "a Pairwise labeler gives no score that has a mean; selection or a gate uses judgeMean: name another metric there",
        "spec.evaluate.judge.type",
    ),
    Wrong(
        {"spec.reward": {"type": "Pairwise", "pairwise": {"model": MODEL}}, "spec.selection": {"metric": "rewardMean"}},
        "spec.selection.metric",
        "a Pairwise labeler gives no score that has a mean; selection or a gate uses rewardMean: name another metric there",
        "spec.reward.type",
    ),
    Wrong({"spec.gates": [gate(metric="winRateVsInitial", min=45)]}, "spec.gates[0].min", _SHARE),
    Wrong({"spec.gates": [gate(metric="clippedShare", max=-1)]}, "spec.gates[0].max", _SHARE),
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

PODS = [
    *(
        Wrong(pod(env=[{"name": name, "value": "x"}]), "spec.sample.pod.env[0].name", _RESERVED_VARIABLE)
        for name in ("PET_NNODES", "LD_PRELOAD", "PYTHONPATH", "AWS_REGION")
    ),
    *(
        Wrong(pod(labels={key: "x"}), f'spec.sample.pod.labels["{key}"]', _RESERVED_KEY, "spec.sample.pod.labels")
        for key in ("rlhf.dev/run", "app.kubernetes.io/name", "batch.kubernetes.io/x", "job-name")
    ),
    Wrong(
        pod(annotations={"kueue.x-k8s.io/x": "y"}),
        'spec.sample.pod.annotations["kueue.x-k8s.io/x"]',
        _RESERVED_KEY,
        "spec.sample.pod.annotations",
    ),
    *(
        Wrong(
            mounted(mountPath=path),
            "spec.sample.pod.volumeMounts[0].mountPath",
            "the operator mounts its own volume here; mount it elsewhere",
        )
        for path in ("/dev/shm", "/etc/rlhf/x")
    ),
    *(
        Wrong(
            mounted(subPath=path),
            "spec.sample.pod.volumeMounts[0].subPath",
            "leads out of the volume; write a path inside it, without ..",
        )
        for path in ("a/../../b", "..", "/a")
    ),
    Wrong(
        pod(volumes=[{"name": "rlhf-shm", "emptyDir": {}}]),
        "spec.sample.pod.volumes[0].name",
        "the operator's own volumes have such names",
    ),
]

WRONG = [*SHAPES, *UNKNOWN, *NUMBERS, *TEXTS, *DUPLICATES, *UNIONS, *FITTING, *PODS]

#: What our own validation refuses, and the API server does not know: by the name of the rule (rlhf_api.validation.check.RULES).
#: `rlhfctl validate` and `submit` refuse it before it is sent; applied with kubectl, the run ends Failed with ConfigurationError.
ONLY_OURS: dict[str, list[dict[str, Any]]] = {
    # Schemas of Kubernetes have no names of keys in a map.
    "keys of resources": [pod(resources={"limits": {"-x": 1}})],
    "judge_is_independent": [
        {"spec.evaluate.judge": {"type": "BradleyTerry", "bradleyTerry": {"model": {**MODEL, "base": "owner/reward"}}}}
    ],
    "every_entry_samples": [{"spec.sample.mixture": [{"name": "a", "weight": 100.0}, {"name": "b", "weight": 1.0}]}],
    "greedy_entries_answer_once": [mixture(temperature=0), mixture(topK=1)],
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
