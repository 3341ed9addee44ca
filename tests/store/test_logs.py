"""The log of every pod of a run has an object of its own, found by the name of its attempt."""

from __future__ import annotations

import pytest

from rlhf_api.conventions.log_names import LogName
from rlhf_api.stage import RunRef
from rlhf_api.words import StageName
from rlhf_store import AlreadyExists, LogWriter, Store, Unavailable, kept_logs, log_key
from support.artifacts import keys

RUN = RunRef(namespace="research", name="summaries", uid="0000-1111")
FOLDER = "runs/research/summaries/0000-1111/logs"
SHARD = LogName(StageName.SAMPLE, 1, 2, 3)


@pytest.mark.parametrize("text", ["preflight-0-1", "train-12-3", "sample-1-1-0", "reference-2-10-63"])
def test_a_name_is_read_as_it_was_written(text: str) -> None:
    assert str(LogName.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "train", "train-1", "training-1-1", "train-1-1-", "train-1-1-0-0", "train-a-1", "train-1-1.log"]
)
def test_another_name_is_none(text: str) -> None:
    assert LogName.parse(text) is None


def test_a_log_that_grows_stays_one_object(store: Store) -> None:
    writer = LogWriter(store, RUN, SHARD)
    writer.put(b"loading\n")
    writer.put(b"loading\nsealed\n")

    assert keys(store) == [f"{FOLDER}/sample-1-2-3.log"]
    assert store.get(writer.key) == b"loading\nsealed\n"


def test_the_next_pod_of_the_same_name_takes_the_next_number(store: Store) -> None:
    for number in (1, 2, 3):
        writer = LogWriter(store, RUN, SHARD)
        writer.put(b"begins\n")
        writer.put(b"pod %d\n" % number)

    assert keys(store) == [f"{FOLDER}/sample-1-2-3{number}.log" for number in (".2", ".3", "")]
    logs = {log.number: log for log in kept_logs(store, RUN)}
    assert [store.get(logs[number].key) for number in (1, 2, 3)] == [b"pod 1\n", b"pod 2\n", b"pod 3\n"]


def test_the_logs_of_a_run_are_found_and_nothing_beside_them(store: Store) -> None:
    for key in (
        "train-1-1.log",
        "sample-1-1-10.2.log",
        "notes.txt",
        "training-1-1.log",
        "train-1-1.old.log",
        "below/train-1-1.log",
    ):
        store.put(f"{FOLDER}/{key}", b"")
    store.put(log_key(RunRef(namespace="research", name="summaries", uid="0000-11112"), SHARD), b"")

    found = {(str(log.name), log.number) for log in kept_logs(store, RUN)}

    assert found == {("train-1-1", 1), ("sample-1-1-10", 2)}
    assert {log.key for log in kept_logs(store, RUN)} == {log_key(RUN, log.name, log.number) for log in kept_logs(store, RUN)}


class _LosesAnswer:
    """The store, whose first put is done and answered by nothing that its caller hears."""

    def __init__(self, store: Store) -> None:
        self._store, self._lost = store, False

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._store.put(key, data, if_absent=if_absent)
        if not self._lost:
            self._lost = True
            raise Unavailable("no answer", f"{self._store.url}/{key}")

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_an_object_that_a_failed_put_made_is_known_again(store: Store) -> None:
    writer = LogWriter(_LosesAnswer(store), RUN, SHARD)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        writer.put(b"loading\n")
    writer.put(b"loading\nsealed\n")

    assert [store.get(key) for key in keys(store)] == [b"loading\nsealed\n"]


def test_an_object_of_another_pod_is_never_replaced_after_a_failed_put(store: Store) -> None:
    writer = LogWriter(_LosesAnswer(store), RUN, SHARD)  # type: ignore[arg-type]
    store.put(log_key(RUN, SHARD), b"another's\n")
    with pytest.raises(Unavailable):
        writer.put(b"ours\n")
    writer.put(b"ours, and more\n")

    assert store.get(log_key(RUN, SHARD)) == b"another's\n"
    assert [store.get(log_key(RUN, SHARD, number)) for number in (2,)] == [b"ours, and more\n"]
    with pytest.raises(AlreadyExists):
        store.put(log_key(RUN, SHARD, 2), b"", if_absent=True)
