"""Names, references, pods, what may change: the small rules."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.resource.compute import Pod
from rlhf_api.resource.status import ArtifactStatus, CheckpointStatus, ConditionStatus, RLHFRunStatus, StageStatus
from rlhf_api.words import ConditionType, Phase, Reason, StageName
from rlhf_operator.core.chain.history import history_of
from rlhf_operator.core.chain.references import external_references
from rlhf_operator.core.changes import immutable_changes
from rlhf_operator.core.jobs.execution import queue_of
from rlhf_operator.core.jobs.names import child_name
from rlhf_operator.core.jobs.pods import merge_pods, pod_of
from rlhf_operator.core.status.conditions import Standing, with_standing
from rlhf_operator.core.status.sentences import clip
from rlhf_operator.core.status.status import _checkpoint
from support.runs import spec_of

RUN_NAMES = st.from_regex(r"\A[a-z]([-a-z0-9]{0,61}[a-z0-9])?\Z")
CHILDREN = st.tuples(RUN_NAMES, st.none() | st.integers(1, 50), st.sampled_from(StageName), st.integers(1, 99999))


@given(CHILDREN)
def test_a_childs_name_is_an_rfc_1035_label_with_room_for_an_index(child: tuple[str, int | None, StageName, int]) -> None:
    name = child_name(*child)
    assert len(name) <= 52
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)


@given(CHILDREN, CHILDREN)
def test_different_children_have_different_names(one: Any, other: Any) -> None:
    assert (child_name(*one) == child_name(*other)) == (one == other)


def test_runs_whose_names_look_like_children_are_kept_apart() -> None:
    assert child_name("x", 1, StageName.EVALUATE, 1) != child_name("x-i1", None, StageName.EVALUATE, 1)


def test_every_reference_from_outside_is_listed_with_its_path() -> None:
    data = [{"name": "prefs", "uri": "hf://example/prefs"}]
    spec = spec_of(
        sft={"data": [{"name": "demos", "uri": "hf://example/demos"}]},
        reward={"type": "BradleyTerry", "bradleyTerry": {"train": {"base": {"uri": "hf://example/rm"}, "data": data}}},
        prompts={
            "source": {"uri": "hf://example/prompts-{iteration}"},
            "validation": {"source": {"uri": "hf://example/validation"}},
            "test": {"size": 5},
        },
        reference={"type": "Model", "model": {"uri": "hf://example/reference"}},
        evaluate={"judge": {"type": "Pairwise", "pairwise": {"model": {"uri": "hf://example/judge"}}}},
    )
    assert {reference.path: reference.target.uri for reference in external_references(spec)} == {
        "policy.model": "hf://example/base",
        "sft.data/demos": "hf://example/demos",
        "reward.bradleyTerry.train.base": "hf://example/rm",
        "reward.bradleyTerry.train.data/prefs": "hf://example/prefs",
        "evaluate.judge.pairwise.model": "hf://example/judge",
        "prompts.source/1": "hf://example/prompts-1",
        "prompts.source/2": "hf://example/prompts-2",
        "prompts.validation.source": "hf://example/validation",
        "reference.model": "hf://example/reference",
    }


def test_a_source_that_is_the_same_in_all_iterations_is_one_reference() -> None:
    assert [reference.path for reference in external_references(spec_of())] == ["policy.model", "prompts.source"]


def pod(**fields: Any) -> Pod:
    return Pod.model_validate(fields)


def test_pod_defaults_are_merged_under_the_stages_own() -> None:
    defaults = pod(
        resources={"limits": {"cpu": 4, "memory": "8Gi"}},
        nodeSelector={"zone": "a", "disk": "ssd"},
        tolerations=[{"key": "gpu"}],
        env=[{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
        priorityClassName="low",
        shmSize="1Gi",
    )
    own = pod(
        resources={"limits": {"cpu": 8, "nvidia.com/gpu": 1}},
        nodeSelector={"zone": "b"},
        tolerations=[{"key": "spot"}],
        env=[{"name": "B", "value": "2"}],
        priorityClassName="high",
    )
    assert merge_pods(defaults, own) == pod(
        resources={"limits": {"cpu": 8, "memory": "8Gi", "nvidia.com/gpu": 1}},
        nodeSelector={"zone": "b", "disk": "ssd"},
        tolerations=[{"key": "gpu"}, {"key": "spot"}],
        env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        priorityClassName="high",
        shmSize="1Gi",
    )


def test_cpu_stages_ask_for_no_device_and_go_to_the_cpu_queue() -> None:
    defaults = {"resources": {"limits": {"nvidia.com/gpu": 8, "cpu": 4}}}
    spec = spec_of(podDefaults=defaults, queue={"name": "gpu", "cpuName": "cpu", "priorityClass": "low"})
    for stage in (StageName.PREFLIGHT, StageName.RESOLVE, StageName.FINALIZE):
        resources = pod_of(spec, stage).resources
        queue = queue_of(spec, stage)
        assert resources is not None
        assert resources.limits == {"cpu": 4}
        assert queue is not None
        assert (queue.name, queue.priority_class) == ("cpu", "low")
    assert queue_of(spec_of(queue={"name": "gpu"}), StageName.PREFLIGHT) is None


def test_a_stages_own_queue_goes_before_the_runs() -> None:
    spec = spec_of(queue={"name": "gpu", "priorityClass": "low"}, sample={"queue": {"name": "sampling"}})
    queue = queue_of(spec, StageName.SAMPLE)
    assert queue is not None
    assert (queue.name, queue.priority_class) == ("sampling", "low")


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"suspend": True, "activeDeadlineSeconds": 5, "ttlSecondsAfterFinished": 5, "iterations": 3}, []),
        ({"approvals": [{"gate": "a", "iteration": 1}, {"gate": "b", "iteration": 1}]}, []),
        ({"approvals": []}, ["spec.approvals"]),
        ({"iterations": 1}, ["spec.iterations"]),
        ({"cancel": False}, ["spec.cancel"]),
        ({"seed": 1, "train": {"loss": {"beta": 0.2}}}, ["spec.seed", "spec.train.loss.beta"]),
        ({"queue": {"name": "gpu", "priorityClass": "high"}}, []),
        ({"queue": {"name": "other"}}, ["spec.queue.name"]),
    ],
    ids=str,
)
def test_what_of_a_spec_may_change(changes: dict[str, Any], refused: list[str]) -> None:
    before = {"approvals": [{"gate": "a", "iteration": 1}], "cancel": True, "queue": {"name": "gpu", "priorityClass": "low"}}
    assert immutable_changes(spec_of(**before), spec_of(**{**before, **changes})) == refused


def test_the_checkpoint_is_where_the_files_of_the_best_iterate_lie() -> None:
    digest, fingerprint = "a" * 64, "b" * 64
    artifact = ArtifactStatus(url=f"file:///store/policy/{fingerprint}", digest=digest, fingerprint=fingerprint, folder="c0ffee")
    done = StageStatus(name=StageName.SFT, phase=Phase.SUCCEEDED, artifact=artifact)
    status = RLHFRunStatus(stages=[done])
    found = _checkpoint(status, history_of(status), 0)
    assert found == CheckpointStatus(url=f"file:///store/policy/{fingerprint}/c0ffee", digest=digest)


@pytest.mark.parametrize(
    ("reason", "ready"),
    [(Reason.CONFIGURATION_ERROR, ConditionStatus.FALSE), (Reason.RETRY_BUDGET_EXHAUSTED, ConditionStatus.TRUE)],
)
def test_a_manifest_that_cannot_be_run_was_not_accepted(reason: Reason, ready: ConditionStatus) -> None:
    status = with_standing(RLHFRunStatus(), Standing(Phase.FAILED, reason, "Why."), 1, datetime(2026, 1, 1, tzinfo=UTC))
    assert {condition.type: condition.status for condition in status.conditions}[ConditionType.READY] is ready


def test_what_steers_a_terminal_comes_into_no_status() -> None:
    """A termination message is written by whatever image a manifest names."""
    said = clip("\x1b]0;title\x07\x1b[2Jall is well\r\n\tso it seems\x9b")
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said) == []
    assert "all is well" in said
    assert "\n\tso it seems" in said
