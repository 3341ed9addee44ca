"""Right manifests that are near to wrong ones, as changes of the small one."""

from __future__ import annotations

from typing import Any

from .manifests import ANSWERED, ASKED, MADE, MATCHED, RULE, SERVED, TRAINED, gate, made, pod

ACCEPTED: list[dict[str, Any]] = [
    {},
    {"spec.train.compute": {"nodes": 2, "processesPerNode": 8}},
    {"spec.train.maxPromptLength": 2047},
    {"spec.reward": MATCHED},
    {"spec.reward": MATCHED, "spec.label.pairing": {"minRewardStd": 0.49, "minMargin": 0.99}},
    {"spec.reward": MATCHED, "spec.label": {"pairing": {"minRewardStd": 2, "minMargin": 2}, "lengthPenaltyPerCharacter": 0.1}},
    {"spec.label.pairing": {"minRewardStd": 5, "minMargin": 5}},
    {"spec.reward": ANSWERED, "spec.prompts.source.answerColumn": "answer"},
    {"spec.reward": ANSWERED, "spec.prompts.source.answerColumn": "answer", "spec.prompts.test": {"source": {"uri": "hf://a/b"}}},
    {"spec.evaluate.judge": ANSWERED, "spec.prompts.validation": {"source": {"uri": "hf://a/b", "answerColumn": "answer"}}},
    {"spec.evaluate": {"judge": ANSWERED, "allowTrainingReward": True}, "spec.reward": ANSWERED, "spec.prompts.source": ASKED},
    {"spec.evaluate.judge": {"type": "Rule", "rule": {"regex": {"pattern": "a", "negate": True}}}, "spec.reward": MATCHED},
    {"spec.reward": {"type": "Human", "human": {}}, "spec.annotations": [{"iteration": 3, "digest": "a" * 64}]},
    {"spec.reward": {"type": "Human", "human": {"instructions": "Be strict.", "pairsPerPrompt": 3, "minAnswered": 0}}},
    {"spec.reward": {"type": "Human", "human": {"pairsPerPrompt": 3}}, "spec.sample": {"completionsPerPrompt": 3}},
    {"spec.evaluate.judge": SERVED},
    {"spec.reward": SERVED, "spec.label.pairing": {"minRewardStd": 0.49}},
    {"spec.reward": SERVED, "spec.evaluate": {"judge": SERVED, "allowTrainingReward": True}},
    {"spec.reward": SERVED, "spec.evaluate.judge": SERVED, "spec.evaluate.judge.judge.endpoint.model": "another"},
    {"spec.evaluate.judge": SERVED, "spec.evaluate.judge.judge.prompt": 'Be {"strict": true}.'},
    {"spec.evaluate.judge": SERVED, "spec.evaluate.judge.judge.prompt": "{mark} {prompt} {responseA} {responseB}"},
    {"spec.evaluate.judge": MADE},
    {"spec.reward": MADE, "spec.evaluate": {"judge": MADE, "allowTrainingReward": True}},
    {"spec.reward": MADE, "spec.evaluate.judge": made(base={"uri": "hf://owner/other"})},
    {"spec.reward": MADE, "spec.evaluate.judge": made(data=[{"name": "a", "uri": "hf://owner/data", "split": "judge"}])},
    {"spec.train.tokenBudget": 2048},
    {"spec.sample": {"shards": 4, "parallelism": 4}},
    {"spec.sample.mixture": [{"name": "a", "iterate": {"type": "Number", "iteration": 2}}]},
    {"spec.prompts.validation": {"fraction": 0.5}, "spec.prompts.test": {"fraction": 0.4999}},
    {"spec.prompts.validation": {"fraction": 0.9}, "spec.prompts.test": {"source": {"uri": "hf://a/b"}, "fraction": 0.9}},
    {"spec.gates": [gate(metric="clippedShare", max=1), gate(name="h", metric="winRateVsInitial", min=0)]},
    {"spec.storage.url": "s3://abc"},
    {"spec.policy.model.uri": "s3://bucket"},
    {"spec.policy.model.uri": "file:///"},
    pod(env=[{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "HF_HUB_OFFLINE", "value": ""}]),
    pod(env=[{"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "key"}}}]),
    pod(volumes=[{"name": "v", "emptyDir": {}}], volumeMounts=[{"name": "v", "mountPath": "/dev/shmem", "subPath": "a..b/.c"}]),
    {"spec.reward": RULE, "spec.evaluate.allowTrainingReward": True},
    {"spec.evaluate.judge": TRAINED, "spec.evaluate.allowTrainingReward": True},
    {"spec.train.compute": {"deepspeed": {"offload": "All", "zeroStage": 3}}},
    {"spec.selection": {"metric": "klToInitial", "mode": "Min"}, "spec.evaluate.against": ["Previous"]},
    {
        "spec.evaluate.lmEval": {"tasks": ["gsm8k"]},
        "spec.gates": [
            {"name": "g", "benchmark": {"task": "gsm8k", "metric": "exact_match"}, "maxDrop": 0.03, "action": "Rollback"},
            {"name": "h", "benchmark": {"task": "gsm8k", "metric": "exact_match"}, "min": 0.4, "action": "Warn"},
        ],
    },
    {"spec.gates": [gate(metric="trainLoss", max=3), gate(name="h", metric="gpuSeconds", max=1e6)]},
    {"spec.gates": [gate(max=1, action="Pause")], "spec.approvals": [{"gate": "g", "iteration": 3}]},
    {"spec.prompts.source.uri": "hf://a/b-{iteration}"},
    {"spec.prompts.validation": {"source": {"uri": "hf://a/validation"}, "size": 10}},
    {
        "spec.sample.mixture": [
            {"name": "a", "iterate": {"type": "Number", "iteration": 0}},
            {"name": "b", "iterate": {"type": "Best"}},
        ]
    },
    {
        "spec.sample.pod": {"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
        "spec.podDefaults": {"volumes": [{"name": "v", "emptyDir": {}}]},
    },
    pod(labels={"team.example.com/name": "x"}, nodeSelector={"kubernetes.io/arch": "amd64"}),
    pod(resources={"limits": {"memory": "1Gi", "cpu": 2}, "requests": {"memory": "1000M", "cpu": "1500m"}}),
]
