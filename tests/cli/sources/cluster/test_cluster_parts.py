"""The pure parts of the CLI on a cluster: objects that are read, patches that are made, Events and logs that belong to a run."""

from __future__ import annotations

import copy
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api import RLHFRun
from rlhf_api.conventions.log_names import LogName
from rlhf_api.words import StageName
from rlhf_operator.core.jobs.names import child_name
from rlhfctl.errors import CliError
from rlhfctl.sources.cluster.applying import merge_patch
from rlhfctl.sources.cluster.events import Belongs, of_run
from rlhfctl.sources.cluster.gone_logs import Gone, gone_logs
from rlhfctl.sources.cluster.logs import _Shown
from rlhfctl.sources.cluster.objects import EventView, PodView, event_view, parse_run, pod_view
from rlhfctl.sources.cluster.streams import Streams
from rlhfctl.sources.source import LogSelection, prefix
from support import example_runs

STORE = "s3://models/run"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

_values = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=1) | st.lists(st.integers(0, 2), max_size=2),
    lambda children: st.dictionaries(st.sampled_from("abc"), children, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(st.sampled_from("abc"), _values, max_size=3)


def _patched(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _patched(result.get(key), value)
    return result


@given(_objects, _objects)
def test_a_patch_makes_the_new_object_of_the_old(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert _patched(old, merge_patch(old, new)) == new
    assert merge_patch(old, old) == {}


def test_fields_of_a_newer_operator_are_passed_over() -> None:
    wire = example_runs.finished("tiny", STORE).to_wire()
    newer = copy.deepcopy(wire)
    newer["spec"]["train"] = {**newer["spec"].get("train", {}), "newKnob": 3}
    newer["status"]["iterations"][0]["stages"][0]["novelty"] = {"a": 1}
    newer["metadata"]["managedFields"] = [{"manager": "x"}]
    assert parse_run(newer) == RLHFRun.model_validate(wire)


def test_a_run_of_another_version_says_what_is_wrong_and_what_to_do() -> None:
    wire = example_runs.finished("tiny", STORE).to_wire()
    wire["spec"]["iterations"] = "three"
    with pytest.raises(CliError, match="another version of the API") as caught:
        parse_run(wire)
    assert "spec.iterations" in caught.value.why
    assert "kubectl get rlhfrun tiny -o yaml" in caught.value.hints


def _raw_pod(**status: object) -> dict[str, Any]:
    labels = {"rlhf.dev/run-uid": "0f0e", "rlhf.dev/iteration": "2", "rlhf.dev/stage": "sample", "rlhf.dev/attempt": "1"}
    metadata = {
        "name": "tiny-i2-sample-1-3-abcde",
        "uid": "p",
        "labels": labels,
        "annotations": {
            "batch.kubernetes.io/job-completion-index": "3",
            "batch.kubernetes.io/job-index-failure-count": "1",
            "batch.kubernetes.io/job-index-ignored-failure-count": "2",
        },
        "creationTimestamp": "2026-03-01T12:00:00Z",
    }
    return {"metadata": metadata, "status": status}


def _state(**state: object) -> list[dict[str, object]]:
    return [{"name": "sidecar", "state": {"running": {}}}, {"name": "stage", "state": state}]


@pytest.mark.parametrize(
    ("status", "started", "ended", "waits_for"),
    [
        ({"phase": "Pending"}, False, False, ""),
        (
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}],
            },
            False,
            False,
            "Unschedulable: no GPU",
        ),
        ({"phase": "Pending", "containerStatuses": _state(waiting={"reason": "ErrImagePull"})}, False, False, "ErrImagePull"),
        ({"phase": "Running", "containerStatuses": _state(running={})}, True, False, ""),
        ({"phase": "Running", "containerStatuses": _state(terminated={"exitCode": 0})}, True, True, ""),
        ({"phase": "Failed", "reason": "Evicted"}, False, True, ""),
    ],
)
def test_a_pod_is_read_by_its_stage_container(status: dict[str, object], started: bool, ended: bool, waits_for: str) -> None:
    view = pod_view(_raw_pod(**status))
    assert view is not None
    assert (view.started, view.ended, view.waits_for) == (started, ended, waits_for)
    assert (str(view.log_name), view.index, view.failed_before, view.run_uid) == ("sample-2-1-3", 3, 3, "0f0e")


def test_a_pod_of_something_else_is_none_of_a_stage() -> None:
    pod = _raw_pod()
    pod["metadata"]["labels"]["rlhf.dev/stage"] = "unknown"
    assert pod_view(pod) is None


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"lastTimestamp": "2026-03-01T12:00:00Z", "firstTimestamp": "2026-03-01T11:00:00Z"}, NOW),
        ({"lastTimestamp": None, "eventTime": "2026-03-01T12:00:00.000000Z"}, NOW),
        ({"series": {"count": 4, "lastObservedTime": "2026-03-01T12:00:00.000000Z"}, "eventTime": "2026-03-01T11:00:00Z"}, NOW),
        ({}, NOW - timedelta(hours=1)),
    ],
)
def test_an_event_s_time_is_the_newest_that_it_has(times: dict[str, Any], expected: datetime) -> None:
    raw = {"metadata": {"uid": "e", "creationTimestamp": "2026-03-01T11:00:00Z"}, "message": "a\n b", **times}
    view = event_view(raw)
    assert (view.time, view.message) == (expected, "a b")
    assert view.count == (4 if "series" in times else 1)


def _event(kind: str, name: str, *, time: datetime = NOW, about: str = "", version: int = 0) -> EventView:
    return EventView(f"{kind}/{name}", kind, name, about, time, "Normal", "Created", "", 1, version)


@pytest.mark.parametrize("name", ["tiny", "a", "x" * 63])
def test_events_of_a_run_are_known_by_the_names_of_its_jobs_and_pods(name: str) -> None:
    wire = example_runs.run(name, STORE).to_wire()
    wire["metadata"] |= {"uid": "0f0e", "creationTimestamp": "2026-03-01T12:00:00Z"}
    run = RLHFRun.model_validate(wire)
    job = child_name(name, 2, StageName.REFERENCE, 11)
    mine = [
        _event("Job", job),
        _event("Pod", f"{job}-7-x2z4b"),
        _event("Pod", f"{job}-x2z4b"),
        _event("RLHFRun", name, about="0f0e"),
    ]
    other = [
        _event("Job", f"more-{job}"),
        _event("Job", child_name(f"{name[:-1]}z", 2, StageName.REFERENCE, 11)),
        _event("Job", job, time=NOW - timedelta(hours=1)),
        _event("RLHFRun", name, about="another"),
        _event("Service", job),
    ]
    assert [event for event in [*mine, *other] if Belongs(run)(event)] == mine


def test_events_come_in_the_order_in_which_the_cluster_took_them() -> None:
    """Some are told by the second, some by the microsecond."""
    run = example_runs.at_work("tiny", STORE)
    job = child_name("tiny", 2, StageName.TRAIN, 1)
    ordered = [
        _event("Pod", f"{job}-x2z4b", time=NOW - timedelta(seconds=1), version=9),
        _event("Job", job, time=NOW + timedelta(microseconds=900), version=3),
        _event("Pod", f"{job}-x2z4b", time=NOW, version=10),
    ]
    assert of_run(run, reversed(ordered)) == ordered


MIDNIGHT = "2026-03-01T00:00:00"


@pytest.mark.parametrize(
    ("first", "again", "new"),
    [
        ([".1Z a", ".1Z b", ".1Z c"], [], "abc"),
        ([".1Z a", ".1Z b"], [".1Z a", ".1Z b", ".1Z c", ".2Z d"], "abcd"),
        ([".1Z a", ".2Z b"], [".1Z a", ".2Z b", ".2Z c"], "abc"),
        ([".1Z a"], [".2Z b", ".1Z c"], "abc"),
        ([".5Z a"], [".499999999Z x", ".5Z a", ".500000001Z b"], "ab"),
        (["+01:00 a"], ["Z b"], "ab"),
        (["Z a"], ["+01:00 x", "Z a", "Z b"], "ab"),
        (["Z a", "no time"], ["Z a", "Z b"], "a?b"),
    ],
)
def test_a_line_of_a_log_is_told_once_whatever_its_time(first: list[str], again: list[str], new: str) -> None:
    """Runtimes give one time to lines that came together; clocks are set back; offsets change in summer."""
    shown = _Shown()
    told: list[str] = []
    for answer in (first, again):
        told += shown.new((f"{MIDNIGHT}{line}" if " " in line and line != "no time" else line).encode() for line in answer)
    assert "".join("?" if text == "no time" else text for text in told) == new


def test_a_log_is_asked_for_from_the_second_of_its_newest_line() -> None:
    shown = _Shown()
    assert shown.since is None
    assert list(shown.new([f"{MIDNIGHT}.123456789+02:00 text with words".encode()])) == ["text with words"]
    assert shown.since == f"{MIDNIGHT}+02:00"


def _pod(stage: StageName, iteration: int, attempt: int, index: int | None = None, failed_before: int = 0) -> PodView:
    return PodView("p", "u", "r", iteration, stage, attempt, index, failed_before, NOW, True, True, "")


def test_attempts_whose_pods_are_gone_are_named_but_not_the_one_at_work() -> None:
    run = example_runs.at_work("tiny", STORE)
    pods = [_pod(stage.name, 0, 1) for stage in run.status.stages] if run.status else []
    pods += [_pod(stage, 1, attempt) for stage in StageName for attempt in (1, 2)]
    assert [str(gone.name) for gone in gone_logs(run, pods, LogSelection())] == [
        "sample-2-1",
        "label-2-1",
        "reference-2-1",
        "train-2-1",
    ]
    assert gone_logs(run, pods, LogSelection(stage=StageName.TRAIN, attempt=2)) == []


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([(0, 0), (1, 0)], []),
        ([(0, 0), (3, 0)], [(1, 0), (2, 0)]),
        ([(0, 1), (1, 0)], [(0, 1)]),
        ([(0, 0), (0, 1), (1, 3), (1, 2)], [(1, 2)]),
    ],
)
def test_pods_that_their_job_replaced_are_missed(pods: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    """By index: failures before a pod, as the Job's controller counts them."""
    run = example_runs.finished("tiny", STORE)
    there = [_pod(StageName.SAMPLE, 2, 1, index, failed_before) for index, failed_before in pods]
    gone = [Gone(LogName(StageName.SAMPLE, 2, 1, index), number) for index, number in expected]
    assert gone_logs(run, there, LogSelection(StageName.SAMPLE, 2)) == gone


def test_the_last_shard_whose_pod_is_gone_is_missed_too_though_it_may_never_have_begun() -> None:
    run = example_runs.run("tiny", STORE, sample={"shards": 3}, train={"compute": {"nodes": 2}})
    run = run.model_copy(update={"status": example_runs.finished("tiny", STORE).status})
    there = [_pod(StageName.SAMPLE, 2, 1, 0), _pod(StageName.TRAIN, 2, 1, 0)]
    assert gone_logs(run, there, LogSelection(StageName.SAMPLE, 2)) == [
        Gone(LogName(StageName.SAMPLE, 2, 1, index), begun=False) for index in (1, 2)
    ]
    assert gone_logs(run, there, LogSelection(StageName.TRAIN, 2)) == [Gone(LogName(StageName.TRAIN, 2, 1, 1), begun=False)]


@pytest.mark.parametrize(
    ("stage", "index", "expected"),
    [
        (StageName.SAMPLE, 3, "shard 3 | "),
        (StageName.LABEL, 0, ""),
        (StageName.TRAIN, 1, "node 1 | "),
        (StageName.PREFLIGHT, None, ""),
    ],
)
def test_lines_carry_the_shard_or_node_where_there_are_several(stage: StageName, index: int | None, expected: str) -> None:
    spec = example_runs.run("tiny", STORE, sample={"shards": 4}, train={"compute": {"nodes": 2}}).spec
    assert prefix(LogName(stage, 1, 1, index), spec) == expected


def test_streams_give_what_each_gives() -> None:
    streams: Streams[int] = Streams()
    streams.add([1, 2])
    streams.add([3])
    coming = streams.until(None)
    assert sorted(next(coming) for _ in range(3)) == [1, 2, 3]


def test_streams_raise_what_one_of_them_raises() -> None:
    def fails() -> Iterator[int]:
        yield 3
        raise ValueError("gone")

    streams: Streams[int] = Streams()
    streams.add(fails())
    coming = streams.until(None)
    assert next(coming) == 3
    with pytest.raises(ValueError, match="gone"):
        next(coming)


def test_streams_end_when_their_time_is_over() -> None:
    streams: Streams[int] = Streams()
    assert list(streams.until(time.monotonic())) == []


def test_ctrl_c_ends_a_wait_for_streams_though_another_thread_took_the_signal() -> None:
    """As it is where it comes between Python's look for signals and the wait: the wait itself is not broken off."""

    def interrupt() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    streams: Streams[int] = Streams()
    threading.Timer(0.2, interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        next(streams.until(None))
