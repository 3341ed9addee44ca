"""Wrong manifests, one value at a time: types, unknown fields, numbers, texts, entries that stand twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .manifests import GONE, gate, mounted, pod

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"should match '^{_LABEL}(\.{_LABEL})*$'"
_QUANTITY = "should match '^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$'"
_URI = "write hf://owner/name, s3://bucket/path or file:///folder (three slashes)"
_STORE = "write s3://bucket/prefix, without / at the end; a folder is no store, for pods on other nodes do not see it"
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
        pod(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}, "fieldRef": {}}}]),
        "spec.sample.pod.env[0].valueFrom.fieldRef",
        'unknown field "spec.sample.pod.env[0].valueFrom.fieldRef"',
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
