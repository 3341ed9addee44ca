"""The index: what watches and lists tell in any order ends in what is."""

from __future__ import annotations

import json
from typing import Any

from rlhf_operator.kubernetes.objects.keys import Kind, RunKey
from rlhf_operator.kubernetes.watch.index import Index

KEY = RunKey("team", "tiny")


def run(version: int = 1, uid: str = "r", **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": "tiny", "namespace": "team", "uid": uid, "resourceVersion": str(version)}, **fields}


def pod(name: str = "p", version: int = 1, uid: str = "", phase: str = "Pending", label: str | None = "tiny") -> dict[str, Any]:
    labels = {} if label is None else {"rlhf.dev/run": label}
    metadata = {"name": name, "namespace": "team", "uid": uid or name, "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata, "spec": {"containers": [{"name": "stage"}]}, "status": {"phase": phase}}


def phases(index: Index, key: RunKey = KEY) -> list[str]:
    return [found["status"]["phase"] for found in index.children(Kind.POD, key)]


def test_what_is_new_or_changed_names_its_run_and_what_is_told_twice_does_not() -> None:
    index = Index()
    assert index.put(Kind.POD, pod()) == KEY
    assert index.put(Kind.POD, pod()) is None
    assert index.put(Kind.POD, pod(version=2)) is None
    assert index.put(Kind.POD, pod(version=3, phase="Running")) == KEY
    assert index.put(Kind.POD, pod("other", label=None)) is None
    assert phases(index) == ["Running"]


def test_an_event_that_comes_late_changes_nothing() -> None:
    index = Index()
    index.put(Kind.POD, pod(version=5, phase="Running"))
    assert index.put(Kind.POD, pod(version=4)) is None
    assert phases(index) == ["Running"]


def test_an_object_that_took_a_name_is_another_one_whatever_its_version() -> None:
    index = Index()
    index.put(Kind.POD, pod(version=5, uid="old", phase="Running"))
    assert index.put(Kind.POD, pod(version=4, uid="new")) == KEY
    assert index.remove(Kind.POD, pod(uid="old")) is None
    assert phases(index) == ["Pending"]
    assert index.remove(Kind.POD, pod(uid="new")) == KEY
    assert phases(index) == []


def test_an_answer_that_comes_after_the_word_of_removal_brings_nothing_back() -> None:
    index = Index()
    index.put(Kind.POD, pod(version=5))
    index.remove(Kind.POD, pod(version=9))
    assert index.put(Kind.POD, pod(version=8, phase="Running")) is None
    assert phases(index) == []
    assert index.put(Kind.POD, pod(version=4, uid="another")) == KEY
    index.remove(Kind.POD, pod("never seen", version=6))
    assert index.put(Kind.POD, pod("never seen", version=5)) is None


def test_one_that_left_by_its_labels_comes_back_with_them() -> None:
    index = Index()
    index.put(Kind.POD, pod(version=5))
    index.remove(Kind.POD, pod(version=9))
    assert index.put(Kind.POD, pod(version=12)) == KEY


def test_of_what_was_removed_only_the_latest_are_remembered() -> None:
    index = Index()
    for number in range(10_001):
        index.remove(Kind.POD, pod(f"p-{number}", version=2))
    assert index.put(Kind.POD, pod("p-10000")) is None
    assert index.put(Kind.POD, pod("p-0")) == KEY


def test_the_version_that_is_read_back_is_the_newest() -> None:
    index = Index()
    index.put(Kind.RUN, run(1, spec={}))
    assert index.put(Kind.RUN, run(2, spec={})) is None
    found = index.run(KEY)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "2"


def test_runs_are_counted_by_phase_as_they_are_told_listed_and_removed() -> None:
    index = Index()
    index.put(Kind.RUN, run())
    index.put(Kind.POD, pod())
    assert index.phases() == {"Pending": 1}
    index.put(Kind.RUN, run(2, status={"phase": "Running"}))
    assert index.phases() == {"Running": 1}
    index.replace(Kind.RUN, [run(3, status={"phase": "Succeeded"})])
    assert index.phases() == {"Succeeded": 1}
    index.remove(Kind.RUN, run(4))
    assert index.phases() == {}


def test_a_list_replaces_everything_of_its_kind_and_tells_what_changed_or_vanished() -> None:
    index = Index()
    index.put(Kind.RUN, run())
    for name, label in (("same", "a"), ("changed", "b"), ("vanished", "c")):
        index.put(Kind.POD, pod(name, label=label))
    listed = [pod("same", 9, label="a"), pod("changed", 9, phase="Running", label="b"), pod("new", 9, label="d")]
    touched = index.replace(Kind.POD, listed)
    assert touched == {RunKey("team", name) for name in ("b", "c", "d")}
    assert index.count(Kind.POD) == 3
    assert index.keys() == {KEY}


def test_a_list_of_one_namespace_leaves_the_others() -> None:
    index = Index()
    index.put(Kind.POD, pod("here"))
    assert index.replace(Kind.POD, [], namespace="elsewhere") == set()
    assert index.replace(Kind.POD, [], namespace="team") == {KEY}


def test_what_was_told_while_the_list_was_on_its_way_is_newer_than_the_list() -> None:
    index = Index()
    index.put(Kind.POD, pod("removed"))
    index.put(Kind.POD, pod("changed"))
    mark = index.mark()
    index.put(Kind.POD, pod("came", version=7))
    index.put(Kind.POD, pod("changed", version=8, phase="Running"))
    index.remove(Kind.POD, pod("removed"))
    listed = [pod("removed", version=2), pod("changed", version=2)]
    assert index.replace(Kind.POD, listed, since=mark) == set()
    assert sorted(phases(index)) == ["Pending", "Running"]
    assert index.replace(Kind.POD, listed) == {KEY}
    assert phases(index) == ["Pending", "Pending"]


def test_what_nobody_reads_is_not_kept() -> None:
    index = Index()
    theirs = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 10_000, "example.com/theirs": "x" * 10_000}
    metadata = {"managedFields": ["x" * 10_000], "annotations": theirs}
    job = pod() | {"spec": {"template": {"spec": "x" * 10_000}, "completions": 2}}
    for kind, obj in ((Kind.JOB, job), (Kind.POD, pod("q")), (Kind.RUN, run())):
        index.put(kind, obj | {"metadata": obj["metadata"] | metadata})
    kept = json.dumps([index.run(KEY), index.children(Kind.JOB, KEY), index.children(Kind.POD, KEY)])
    assert len(kept) < 1500
    assert '"completions": 2' in kept
