"""Settings, logs, metrics and health, each by itself."""

from __future__ import annotations

import io
import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from rlhf_api.resource.run import ImagePullPolicy
from rlhf_api.resource.status import IterationStatus, RLHFRunStatus, StageStatus
from rlhf_api.words import Phase, StageName
from rlhf_operator.kubernetes.installation import Installation
from rlhf_operator.kubernetes.settings import LogFormat, Settings, SettingsError, settings_from
from rlhf_operator.kubernetes.telemetry.health import HealthServer, Heartbeats, Readiness
from rlhf_operator.kubernetes.telemetry.logs import JsonFormatter
from rlhf_operator.kubernetes.telemetry.metrics import Metrics


def settings(**variables: str) -> Settings:
    environment = {f"RLHF_OPERATOR_{name}": value for name, value in variables.items()}
    return settings_from(environment, default_identity="host_1", default_namespace="operators")


def test_without_variables_it_watches_all_namespaces_with_the_defaults_of_the_chart() -> None:
    found = settings()
    assert found.namespaces == ()
    assert (found.lease.namespace, found.lease.name, found.lease.identity) == ("operators", "rlhf-operator", "host_1")
    assert (found.http_port, found.workers, found.log_format, found.log_level) == (8080, 16, LogFormat.JSON, logging.INFO)


def test_variables_are_read_and_empty_ones_count_as_absent() -> None:
    found = settings(
        NAMESPACES=" b, a,",
        SERVICE_ACCOUNTS="rlhf-s3",
        IMAGE="",
        IMAGE_PULL_POLICY="Never",
        LOG_LEVEL="DEBUG",
        LEASE_SECONDS="30",
        IDENTITY="pod_uid",
    )
    assert found.namespaces == ("a", "b")
    assert found.installation == Installation(None, ImagePullPolicy.NEVER, frozenset({"rlhf-s3"}), 65532)
    assert found.log_level == logging.DEBUG
    assert (found.lease.identity, found.lease.seconds, found.lease.write_seconds) == ("pod_uid", 30, 20.0)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WORKERS", "0", "whole number from 1 to 128"),
        ("HTTP_PORT", "eighty", "whole number from 0 to 65535"),
        ("LOG_FORMAT", "xml", "one of json, text"),
        ("IMAGE_PULL_POLICY", "always", "one of Always, IfNotPresent, Never"),
        ("RESYNC_SECONDS", "-5", "whole number"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_would_be_right(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError, match=f"RLHF_OPERATOR_{name} is '{value}'.*{words}"):
        settings(**{name: value})


def test_stages_run_as_the_user_that_is_told_or_as_the_images_own() -> None:
    assert settings(STAGE_USER="1000").installation.run_as == 1000
    assert settings(STAGE_USER="image").installation.run_as is None


def test_outside_a_pod_the_leases_namespace_must_be_told() -> None:
    with pytest.raises(SettingsError, match="RLHF_OPERATOR_LEASE_NAMESPACE"):
        settings_from({}, default_identity="host_1", default_namespace=None)


def test_a_log_line_is_one_json_object_with_the_run_and_the_whole_error() -> None:
    stream = io.StringIO()
    logger = logging.Logger("rlhf.test")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    try:
        raise ValueError("no\nsuch ✗ thing")
    except ValueError:
        logger.exception("Round %d failed.", 3, extra={"run": "alignment/llama3-8b", "unknown": 1})
    [line] = stream.getvalue().splitlines()
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == ("ERROR", "rlhf.test", "Round 3 failed.")
    assert told["run"] == "alignment/llama3-8b"
    assert "unknown" not in told
    assert (told["error"]["type"], told["error"]["message"]) == ("ValueError", "no\nsuch ✗ thing")
    assert "test_app_parts" in told["error"]["traceback"]
    assert datetime.fromisoformat(told["time"]).tzinfo is not None


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_written_status_books_what_it_adds_and_nothing_twice() -> None:
    metrics = Metrics()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    running = StageStatus(name=StageName.TRAIN, phase=Phase.RUNNING, attempt=1, start_time=start, queue_seconds=4.0)
    done = running.model_copy(
        update={
            "phase": Phase.SUCCEEDED,
            "completion_time": start + timedelta(seconds=90),
            "queue_seconds": 6.0,
            "gpu_seconds": 720.0,
        }
    )
    adopted = done.model_copy(update={"name": StageName.SAMPLE, "adopted": True, "gpu_seconds": 0.0})
    before = RLHFRunStatus(iterations=[IterationStatus(number=1, stages=[running])])
    after = RLHFRunStatus(iterations=[IterationStatus(number=1, stages=[adopted, done])])
    metrics.status_written(RLHFRunStatus(), before)
    metrics.status_written(before, after)
    metrics.status_written(after, after)
    assert sample(metrics, "rlhf_stage_queue_seconds_total", stage="train") == 6.0
    assert sample(metrics, "rlhf_stage_gpu_seconds_total", stage="train") == 720.0
    assert sample(metrics, "rlhf_stage_duration_seconds_count", stage="train") == 1
    assert sample(metrics, "rlhf_stage_duration_seconds_sum", stage="train") == 90.0
    assert sample(metrics, "rlhf_stage_duration_seconds_count", stage="sample") is None


def test_the_page_has_every_promised_metric() -> None:
    metrics = Metrics()
    metrics.serve_runs(lambda: {Phase.RUNNING: 2})
    metrics.serve_queue(lambda: 3)
    metrics.requested("get", "rlhfruns", "200")
    page = metrics.page().decode()
    for line in (
        'rlhf_runs{phase="Running"} 2.0',
        'rlhf_runs{phase="Failed"} 0.0',
        "rlhf_queue_depth 3.0",
        'rlhf_stage_queue_seconds_total{stage="train"} 0.0',
        'rlhf_stage_gpu_seconds_total{stage="sample"} 0.0',
        "rlhf_stage_gap_seconds_count 0.0",
        "rlhf_reconcile_seconds_count 0.0",
        "rlhf_reconcile_errors_total 0.0",
        'rlhf_api_requests_total{code="200",resource="rlhfruns",verb="get"} 1.0',
        "# TYPE rlhf_stage_duration_seconds histogram",
        "process_resident_memory_bytes",
    ):
        assert line in page, line


class Health:
    """A health server with hands on what it looks at."""

    def __init__(self) -> None:
        self.now = 0.0
        self.heartbeats = Heartbeats(lambda: self.now)
        self.readiness = Readiness()
        self.leading = threading.Event()
        self.server = HealthServer(
            "127.0.0.1",
            0,
            heartbeats=self.heartbeats,
            readiness=self.readiness,
            leading=self.leading.is_set,
            metrics=lambda: b"rlhf_x 1\n",
        )

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode().strip()


@pytest.fixture
def health() -> Iterator[Health]:
    health = Health()
    health.server.start()
    try:
        yield health
    finally:
        health.server.stop()


def test_it_lives_while_all_beat_and_says_who_does_not(health: Health) -> None:
    health.heartbeats.expect("worker 0", 10)
    health.heartbeats.expect("watch of pods", 60)
    health.now = 9
    assert health.get("/livez") == (200, "ok")
    health.now = 30
    assert health.get("/livez") == (503, "worker 0: silent for 30 s")
    health.heartbeats.beat("worker 0")
    assert health.get("/livez") == (200, "ok")
    health.now = 70
    health.heartbeats.beat("worker 0")
    assert health.get("/livez") == (503, "watch of pods: silent for 70 s")


def test_it_is_ready_with_an_index_as_leader_and_as_standby_and_not_while_it_stops(health: Health) -> None:
    assert health.get("/readyz") == (503, "the index is not filled yet")
    health.readiness.indexed.set()
    assert health.get("/readyz") == (503, "not every watch has begun yet")
    health.readiness.watching.set()
    assert health.get("/readyz") == (200, "ok, standby")
    health.leading.set()
    assert health.get("/readyz") == (200, "ok, leader")
    health.readiness.stopping.set()
    assert health.get("/readyz") == (503, "stopping")


def test_metrics_are_served_and_other_paths_are_not(health: Health) -> None:
    assert health.get("/metrics") == (200, "rlhf_x 1")
    assert health.get("/secrets")[0] == 404
