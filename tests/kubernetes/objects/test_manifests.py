"""What a cluster is given for an attempt: golden files, and the promises that a golden file does not name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf_api.conventions.mounts import api_key_variable, hub_token_variable
from rlhf_api.resource.labeler import SecretKey
from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.storage import SecretReference
from rlhf_api.stage import StageConfig
from rlhf_api.words import StageName
from rlhf_operator.core.actions import CreateConfigMap, CreateJob, CreateNetworkPolicy, CreateService
from rlhf_operator.kubernetes.installation import Installation
from rlhf_operator.kubernetes.objects import manifests
from support.backend_contract import launched
from support.golden import assert_golden
from support.runs import run_of, spec_of

GOLDEN = Path(__file__).parent / "golden"
INSTALLATION = Installation(image="registry.example/rlhf:1", image_pull_policy="IfNotPresent")
RUN: dict[str, Any] = {
    "iterations": 1,
    "storage": {
        "url": "s3://bucket/tiny",
        "endpointURL": "https://s3.example.com",
        "credentials": {"secretRef": {"name": "s3-credentials"}},
        "caBundle": {"name": "authorities", "key": "ca.pem"},
    },
    "policy": {
        "model": {"uri": "hf://example/base", "credentials": {"secretRef": {"name": "hub-token"}}},
        "chatTemplate": {"configMapKeyRef": {"name": "templates", "key": "chat.jinja"}},
    },
    "sample": {"shards": 8, "parallelism": 4, "pod": {"resources": {"limits": {"nvidia.com/gpu": 1, "cpu": "8"}}}},
    "train": {
        "compute": {
            "nodes": 2,
            "processesPerNode": 8,
            "deepspeed": {"config": {"name": "deepspeed", "key": "zero3.json"}},
            "pod": {
                "resources": {"limits": {"nvidia.com/gpu": 8, "cpu": "64", "memory": "800Gi"}},
                "nodeSelector": {"example.com/pool": "h100"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                "priorityClassName": "research",
                "shmSize": "64Gi",
                "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
                "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
                "volumeMounts": [{"name": "models", "mountPath": "/models"}],
                "labels": {"example.com/team": "alignment"},
                "annotations": {"example.com/note": "hello"},
            },
        }
    },
    "queue": {"name": "gpu-queue", "priorityClass": "research", "cpuName": "cpu-queue"},
    "imagePullSecrets": [{"name": "registry"}],
}


def actions(stage: StageName, run: RLHFRun | None = None, **options: Any) -> tuple[Any, ...]:
    return launched(run or run_of(spec_of(**RUN)), stage, **options)


def job_in(made_of: tuple[Any, ...]) -> CreateJob:
    return next(action for action in made_of if isinstance(action, CreateJob))


def job_of(stage: StageName, changes: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    run = run_of(spec_of(**{**RUN, **(changes or {})}))
    return manifests.job(run, job_in(actions(stage, run, **options)), INSTALLATION)


def pod_of(stage: StageName, changes: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    pod: dict[str, Any] = job_of(stage, changes, **options)["spec"]["template"]["spec"]
    return pod


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in pod["containers"][0]["env"]}


@pytest.mark.parametrize("stage", [StageName.PREFLIGHT, StageName.SAMPLE, StageName.TRAIN])
def test_the_objects_of_an_attempt_are_these(stage: StageName) -> None:
    run = run_of(spec_of(**RUN))
    documents, made_of = [], actions(stage, run)
    for action in made_of:
        match action:
            case CreateNetworkPolicy():
                documents.append(manifests.network_policy(run, action))
            case CreateConfigMap():
                made = manifests.config_map(run, action)
                assert StageConfig.model_validate(yaml.safe_load(made["data"]["stage.yaml"])) == action.config
                documents.append({**made, "data": {"stage.yaml": "(the StageConfig)"}})
            case CreateService():
                documents.append(manifests.service(run, action))
            case CreateJob():
                documents.append(manifests.job(run, action, INSTALLATION))
    # Without anchors for a dictionary that stands there twice; a fingerprint is other tests' business.
    plain = json.loads(json.dumps(documents).replace(job_in(made_of).config.fingerprint, "(the fingerprint)"))
    assert_golden(yaml.safe_dump_all(plain, sort_keys=False, width=132), GOLDEN / f"{stage}.yaml")


def test_a_judge_that_the_run_trains_has_ranks_texts_and_tokens_of_its_own_section() -> None:
    compute = {
        "nodes": 2,
        "deepspeed": {"config": {"name": "of-judge", "key": "zero.json"}},
        "pod": {"nodeSelector": {"for": "judge"}},
    }
    training = {
        "base": {"uri": "hf://example/other", "credentials": {"secretRef": {"name": "judge-token"}}},
        "data": [{"name": "others", "uri": "hf://example/others"}],
        "compute": compute,
    }
    judge = {"type": "BradleyTerry", "bradleyTerry": {"train": training}}
    job = job_of(StageName.JUDGE, {"evaluate": {"judge": judge}})
    assert job["metadata"]["name"] == "tiny-i0-judge-1"
    assert job["spec"]["completions"] == 2
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"for": "judge"}
    text = json.dumps(pod)
    assert "of-judge" in text
    assert "judge-token" in text
    evaluate = json.dumps(pod_of(StageName.EVALUATE, {"evaluate": {"judge": judge}}))
    assert "of-judge" not in evaluate
    assert "judge-token" not in evaluate, "it reads the artifact"


def test_a_resolve_job_runs_resolve_and_is_booked_on_its_target() -> None:
    job = job_of(StageName.TRAIN, attempt=2, resolving=True)
    labels = job["metadata"]["labels"]
    assert (labels["rlhf.dev/stage"], labels["app.kubernetes.io/component"], labels["rlhf.dev/attempt"]) == (
        "train",
        "resolve",
        "2",
    )
    assert labels["kueue.x-k8s.io/queue-name"] == "cpu-queue"
    assert job["metadata"]["annotations"]["rlhf.dev/resolving"] == "true"
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][:4] == ["python", "-m", "rlhf_trainer", "resolve"]
    assert variables(job["spec"]["template"]["spec"])["RLHF_KEEP_LOG"] == "train-1-2"
    assert "nvidia.com/gpu" not in container["resources"].get("limits", {})


def test_every_token_has_a_variable_of_its_own_and_only_where_it_is_needed() -> None:
    judge = {"uri": "hf://example/judge", "credentials": {"secretRef": {"name": "judge-token"}}}
    changes = {"evaluate": {"judge": {"type": "BradleyTerry", "bradleyTerry": {"model": judge}}}}
    policy, judges = (hub_token_variable(SecretReference(name=name)) for name in ("hub-token", "judge-token"))
    preflight = variables(pod_of(StageName.PREFLIGHT, changes))
    assert preflight[policy] == {"secretKeyRef": {"name": "hub-token", "key": "HF_TOKEN"}}
    assert preflight[judges] == {"secretKeyRef": {"name": "judge-token", "key": "HF_TOKEN"}}
    sample = variables(pod_of(StageName.SAMPLE, changes))
    assert policy in sample
    assert judges not in sample


def test_an_endpoints_key_is_in_the_pods_that_ask_it_and_by_reference() -> None:
    endpoint = {"baseUrl": "https://judge.example/v1", "model": "judge", "apiKey": {"secretRef": {"name": "judge", "key": "token"}}}
    changes = {"evaluate": {"judge": {"type": "Judge", "judge": {"endpoint": endpoint}}}}
    name = api_key_variable(SecretKey(name="judge", key="token"))
    for stage in (StageName.PREFLIGHT, StageName.EVALUATE):
        assert variables(pod_of(stage, changes))[name] == {"secretKeyRef": {"name": "judge", "key": "token"}}
    for stage in (StageName.SAMPLE, StageName.LABEL, StageName.TRAIN):
        assert name not in variables(pod_of(stage, changes))


def test_credentials_by_service_account_put_no_secret_into_the_pod() -> None:
    storage = {"url": "s3://bucket/tiny", "credentials": {"serviceAccountName": "rlhf-s3"}}
    pod = pod_of(StageName.SAMPLE, {"storage": storage})
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("rlhf-s3", False)
    assert not any(name.startswith("AWS_") for name in variables(pod))


def test_a_variable_from_a_secret_is_left_to_the_kubelet() -> None:
    secret = {"secretKeyRef": {"name": "wandb", "key": "key"}}
    pod = pod_of(StageName.TRAIN, {"podDefaults": {"env": [{"name": "WANDB_API_KEY", "valueFrom": secret}]}})
    assert {"name": "WANDB_API_KEY", "valueFrom": secret} in pod["containers"][0]["env"]


def test_a_volume_of_the_manifest_over_scratch_is_meant() -> None:
    own = {
        "volumes": [{"name": "fast", "persistentVolumeClaim": {"claimName": "nvme", "readOnly": False}}],
        "volumeMounts": [{"name": "fast", "mountPath": "/scratch", "readOnly": False}],
    }
    mounts = pod_of(StageName.SAMPLE, {"podDefaults": own})["containers"][0]["volumeMounts"]
    assert [mount["name"] for mount in mounts if mount["mountPath"] == "/scratch"] == ["fast"]
    assert {"/tmp", "/home/rlhf"} < {mount["mountPath"] for mount in mounts}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (None, {"limits": {"memory": "4Gi"}, "requests": {"memory": "1Gi", "cpu": "500m"}}),
        (
            {"limits": {"memory": "512Mi", "nvidia.com/gpu": 8}},
            {"limits": {"memory": "512Mi"}, "requests": {"cpu": "500m"}},
        ),
        ({"requests": {"cpu": 2, "memory": "8Gi"}}, {"requests": {"cpu": "2", "memory": "8Gi"}}),
    ],
)
def test_cpu_stages_ask_for_what_they_need_unless_the_manifest_says_it(
    resources: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    defaults = {} if resources is None else {"resources": resources}
    assert pod_of(StageName.PREFLIGHT, {"podDefaults": defaults})["containers"][0]["resources"] == expected


@pytest.mark.parametrize(("cpu", "ranks", "threads"), [("64", 8, "8"), ("500m", 1, "1"), ("3", 8, "1"), (None, 8, None)])
def test_threads_are_the_cores_of_the_container_over_its_ranks(cpu: str | None, ranks: int, threads: str | None) -> None:
    pod = {} if cpu is None else {"resources": {"limits": {"cpu": cpu}}}
    changes = {"train": {"compute": {"nodes": 1, "processesPerNode": ranks, "pod": pod}}}
    assert variables(pod_of(StageName.TRAIN, changes)).get("OMP_NUM_THREADS") == threads


def test_an_installation_may_leave_the_user_to_the_cluster() -> None:
    run = run_of(spec_of(**RUN))
    pod = manifests.job(run, job_in(actions(StageName.SAMPLE, run)), Installation(image="i", run_as=None))["spec"]["template"][
        "spec"
    ]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_the_run_s_own_image_policy_is_over_the_installation_s() -> None:
    assert pod_of(StageName.SAMPLE)["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert pod_of(StageName.SAMPLE, {"imagePullPolicy": "Always"})["containers"][0]["imagePullPolicy"] == "Always"
