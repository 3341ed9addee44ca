"""How an attempt ended, and what follows: the failure classes and budgets of docs/api.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rlhf_api.resource.compute import Retry
from rlhf_api.resource.status import StageStatus
from rlhf_api.stage import StageConfig, StageResult
from rlhf_api.words import Phase, Reason, StageName
from rlhf_operator.core.attempts.outcome import Failed, FailureClass, Lost, NotFound, Succeeded, classify, outcome_of
from rlhf_operator.core.attempts.retry import booked, exhausted, wait_before_retry
from rlhf_operator.core.observed import Job, JobPhase, Pod, PodState
from rlhf_operator.core.plan.planner import Planner
from support.runs import RUN, result_of, spec_of, walk

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONFIGURATION, INFRASTRUCTURE, APPLICATION = FailureClass.CONFIGURATION, FailureClass.INFRASTRUCTURE, FailureClass.APPLICATION


def failed(exit_code: int | None, *, index: int = 0, at: float = 0.0, **fields: Any) -> Pod:
    return Pod(PodState.FAILED, index, exit_code, created_at=NOW, finished_at=NOW + timedelta(seconds=at), **fields)


def job(*pods: Pod, phase: JobPhase = JobPhase.FAILED, stage: StageName = StageName.TRAIN, **fields: Any) -> Job:
    return Job("it", "uid", 1, stage, 1, phase, NOW, pods=pods, **fields)


def config(stage: StageName) -> StageConfig:
    return next(config for config in walk(Planner(RUN, spec_of()))[0] if config.stage is stage)


TRAIN = config(StageName.TRAIN)
GOOD = result_of(TRAIN)
BAD = StageResult(stage=StageName.TRAIN, problem="It broke.")


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (failed(64), CONFIGURATION),
        (failed(64, disrupted=True), CONFIGURATION),
        (failed(75), INFRASTRUCTURE),
        (failed(143), INFRASTRUCTURE),
        (failed(137), INFRASTRUCTURE),
        (failed(None), INFRASTRUCTURE),
        (failed(1, disrupted=True), INFRASTRUCTURE),
        (failed(137, reason="OOMKilled"), APPLICATION),
        (failed(1, reason="Evicted"), APPLICATION),
        (failed(137, reason="Evicted", disrupted=True), INFRASTRUCTURE),
        (failed(1), APPLICATION),
        (failed(2), APPLICATION),
        (failed(139), APPLICATION),
    ],
    ids=str,
)
def test_the_class_of_a_failure(pod: Pod, expected: FailureClass) -> None:
    assert classify(pod) is expected


def test_the_first_to_end_is_the_cause_and_its_peers_are_consequences() -> None:
    preempted = outcome_of(job(failed(1, index=0, at=2), failed(143, index=1, at=1, disrupted=True)), TRAIN, NOW)
    assert isinstance(preempted, Failed)
    assert preempted.failure is INFRASTRUCTURE
    broken = outcome_of(job(failed(1, index=0, at=1), failed(143, index=1, at=2)), TRAIN, NOW)
    assert isinstance(broken, Failed)
    assert broken.failure is APPLICATION


def test_a_configuration_error_anywhere_is_the_cause() -> None:
    outcome = outcome_of(job(failed(1, index=0, at=1), failed(64, index=1, at=9)), TRAIN, NOW)
    assert isinstance(outcome, Failed)
    assert outcome.failure is CONFIGURATION


def test_it_is_not_over_while_a_pod_lives_or_the_job_has_only_a_failure_target() -> None:
    living = Pod(PodState.TERMINATING, 1)
    assert outcome_of(job(failed(1), living), TRAIN, NOW) is None
    assert outcome_of(job(failed(1), phase=JobPhase.FAILURE_TARGET), TRAIN, NOW) is None
    assert outcome_of(job(Pod(PodState.RUNNING), phase=JobPhase.ACTIVE), TRAIN, NOW) is None


def test_a_sealed_artifact_is_success_even_if_a_peer_fell_afterwards() -> None:
    done = Pod(PodState.SUCCEEDED, 0, 0, result=GOOD)
    assert outcome_of(job(done, failed(1, index=1)), TRAIN, NOW) == Succeeded(GOOD)


def test_a_stage_without_an_artifact_is_done_when_its_pods_are_and_not_when_one_of_them_still_works() -> None:
    """The word Complete comes a second later, and no GPU is to wait for it."""
    preflight = config(StageName.PREFLIGHT)
    done = Pod(PodState.SUCCEEDED, 0, 0, result=result_of(preflight))
    for phase in (JobPhase.ACTIVE, JobPhase.COMPLETE):
        assert isinstance(outcome_of(job(done, phase=phase), preflight, NOW), Succeeded)
    for unfinished in (job(done, Pod(PodState.RUNNING, 1), phase=JobPhase.ACTIVE), job(done, phase=JobPhase.FAILURE_TARGET)):
        assert outcome_of(unfinished, preflight, NOW) is None


def test_a_complete_job_without_a_readable_result_is_lost_not_failed() -> None:
    assert isinstance(outcome_of(job(Pod(PodState.SUCCEEDED, 0, 0), phase=JobPhase.COMPLETE), TRAIN, NOW), Lost)


def test_a_result_about_another_artifact_is_no_result() -> None:
    assert GOOD.artifact is not None
    other = GOOD.model_copy(update={"artifact": GOOD.artifact.model_copy(update={"fingerprint": "0" * 64})})
    assert isinstance(outcome_of(job(Pod(PodState.SUCCEEDED, 0, 0, result=other), phase=JobPhase.COMPLETE), TRAIN, NOW), Lost)


def test_a_resolve_that_says_there_is_nothing_found_nothing() -> None:
    resolve = Planner(RUN, spec_of()).attempt_config(TRAIN, 2, resolving=True)
    nothing = Pod(PodState.SUCCEEDED, 0, 0, result=StageResult(stage=StageName.TRAIN))
    assert outcome_of(job(nothing, phase=JobPhase.COMPLETE, resolving=True), resolve, NOW) == NotFound()
    assert outcome_of(job(replace(nothing, result=GOOD), phase=JobPhase.COMPLETE, resolving=True), resolve, NOW) == Succeeded(GOOD)


def test_of_workers_that_seal_at_once_the_one_that_made_the_artifact_counts() -> None:
    """Else retention would take it for another run's."""
    second = GOOD.model_copy(update={"found": True})
    pods = [Pod(PodState.SUCCEEDED, index, 0, result=result) for index, result in enumerate((second, GOOD))]
    assert outcome_of(job(*pods, phase=JobPhase.COMPLETE), TRAIN, NOW) == Succeeded(GOOD)
    assert outcome_of(job(pods[0], phase=JobPhase.COMPLETE), TRAIN, NOW) == Succeeded(second)


def test_a_failure_is_conclusive_only_if_every_process_said_why() -> None:
    said, silent, second = failed(1, result=BAD), failed(1, index=1), failed(1, index=1, result=BAD)
    replaced = failed(137, at=-1)
    for pods, conclusive in (
        ((said,), True),
        ((silent,), False),
        ((said, silent), False),
        ((said, second), True),
        # The pod of index 0 is gone: it may have sealed.
        ((second,), False),
        # So may one that was replaced: that its follower failed says nothing of it.
        ((replaced, said), False),
    ):
        outcome = outcome_of(job(*pods), TRAIN, NOW)
        assert isinstance(outcome, Failed)
        assert outcome.conclusive is conclusive


def test_the_message_has_the_exit_code_and_the_stages_own_words() -> None:
    outcome = outcome_of(job(failed(1, result=BAD)), TRAIN, NOW)
    assert isinstance(outcome, Failed)
    assert outcome.message == "It ended with exit code 1: It broke."
    outcome = outcome_of(job(failed(137, reason="OOMKilled")), TRAIN, NOW)
    assert isinstance(outcome, Failed)
    assert (outcome.reason, "OOMKilled" in outcome.message) == (Reason.OOM_KILLED, True)


RETRY = Retry(application=2, infrastructure=3, backoff_seconds=30)


def stage(application: int = 0, infrastructure: int = 0) -> StageStatus:
    return StageStatus(
        name=StageName.TRAIN,
        phase=Phase.RUNNING,
        attempt=1,
        application_retries=application,
        infrastructure_retries=infrastructure,
    )


def test_each_class_has_a_budget_of_its_own() -> None:
    assert booked(stage(), APPLICATION) == stage(application=1)
    assert booked(stage(), INFRASTRUCTURE) == stage(infrastructure=1)
    assert exhausted(stage(2, 3), 1, RETRY, "") is None
    for spent in (stage(application=3), stage(infrastructure=4)):
        failure = exhausted(spent, 1, RETRY, "It ended with exit code 1.")
        assert failure is not None
        assert failure.reason is Reason.RETRY_BUDGET_EXHAUSTED
        assert failure.message.startswith("Stage train of iteration 1 failed ")


@pytest.mark.parametrize(("times", "seconds"), [(1, 30), (2, 60), (3, 120), (8, 3600), (100, 3600)])
def test_the_wait_after_an_application_error_doubles_up_to_an_hour(times: int, seconds: float) -> None:
    assert wait_before_retry(stage(application=times), APPLICATION, RETRY) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("times", "seconds"), [(1, 0), (2, 1), (3, 3), (4, 7), (6, 30), (1000, 30)])
def test_the_wait_after_infrastructure_starts_at_nothing(times: int, seconds: float) -> None:
    assert wait_before_retry(stage(infrastructure=times), INFRASTRUCTURE, RETRY) == timedelta(seconds=seconds)
