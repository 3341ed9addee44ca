"""A server that goes away is waited for, within bounds; what is there afterwards is whole."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhf_api.resource.storage import Storage
from rlhf_store import AlreadyExists, Store, Unavailable, find_artifact, open_artifact, open_store
from support.artifacts import FINGERPRINT, KIND, seal
from support.proxy import loses_answer
from support.s3 import BUCKET, S3Server
from support.waiting import wait_until

pytestmark = pytest.mark.s3


@pytest.fixture
def server(s3_server: S3Server, tmp_path: Path) -> Iterator[S3Server]:
    """One of this test's own, to be stopped; s3_server has put the credentials in the environment."""
    server = S3Server(tmp_path / "s3").start()
    server.create_bucket(BUCKET)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def storage(server: S3Server) -> Storage:
    return server.storage()


@pytest.mark.parametrize(
    "operation",
    [
        lambda store, _: store.get("there") == b"content",
        lambda store, _: store.head("there").size == 7,
        lambda store, _: [entry.key for entry in store.list()] == ["there"],
        lambda store, _: store.put("new", b"", if_absent=True) is None,
        lambda store, scratch: store.download("there", scratch / "target") is None,
    ],
    ids=["get", "head", "list", "conditional put", "download"],
)
def test_a_server_that_comes_back_is_no_error(
    server: S3Server, storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture, operation: Callable[[Store, Path], bool]
) -> None:
    store = open_store(storage)
    store.put("there", b"content")
    server.stop()

    with ThreadPoolExecutor(max_workers=1) as pool:
        result = pool.submit(operation, store, tmp_path)
        wait_until(lambda: "trying again" in caplog.text, "the first failure")
        server.start()
        assert result.result(timeout=60)
    assert "answers again" in caplog.text


def test_a_seal_goes_through_a_restart_and_is_written_once(server: S3Server, storage: Storage, tmp_path: Path) -> None:
    store = open_store(storage)
    files = {f"{number}.bin": random.Random(number).randbytes(3_000_000) for number in range(12)}
    with ThreadPoolExecutor(max_workers=1) as pool:
        sealing = pool.submit(seal, store, files)
        wait_until(lambda: len([r for r in server.requests(storage) if r.operation == "PutObject"]) >= 2, "some of the files")
        server.kill()
        server.start()
        sealed = sealing.result(timeout=60)

    folder = open_artifact(store, sealed.ref).fetch(tmp_path / "fetched")

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert len(server.manifests_put(storage)) == 1


def test_a_server_that_is_away_for_good_is_unavailable_and_says_where(server: S3Server, storage: Storage, tmp_path: Path) -> None:
    store = open_store(storage, retry_seconds=1)
    (tmp_path / "source").write_bytes(b"data")
    server.stop()

    for operation in (lambda: store.get("key"), lambda: store.upload(tmp_path / "source", "key"), lambda: list(store.list())):
        with pytest.raises(Unavailable, match=storage.url) as caught:
            operation()
        assert caught.value.transient
        assert not caught.value.configuration


def test_an_outage_counts_once_for_all_files_that_wait_for_it(server: S3Server, storage: Storage) -> None:
    """Forty files that fail one after the other do not wait forty times."""
    store = open_store(storage, retry_seconds=2)
    server.stop()
    failures: list[Unavailable] = []

    def put_all() -> None:
        for number in range(40):
            try:
                store.put(str(number), b"")
            except Unavailable as error:
                failures.append(error)

    waiting = threading.Thread(target=put_all)
    waiting.start()
    # One outage of 2 s; forty would be 80.
    waiting.join(timeout=40)

    assert not waiting.is_alive()
    assert len(failures) == 40


def test_a_killed_server_has_no_half_of_an_object(server: S3Server, storage: Storage, tmp_path: Path) -> None:
    store = open_store(storage)
    source = tmp_path / "source"
    source.write_bytes(random.Random(0).randbytes(64 << 20))
    with ThreadPoolExecutor(max_workers=1) as pool:
        uploading = pool.submit(store.upload, source, "large")
        wait_until(lambda: any(r.operation == "UploadPart" for r in server.requests(storage)), "the first part")
        server.kill()
        server.start()
        assert store.head("large") is None or uploading.done()
        uploading.result(timeout=60)
    store.download("large", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == source.read_bytes()


def test_a_conditional_put_whose_answer_was_lost_is_a_success(server: S3Server, storage: Storage) -> None:
    """The first request made the object, and nobody heard of it; the second one must not take it for another's."""
    with loses_answer(server.port, rb"^PUT .*/key ") as endpoint:
        open_store(storage.model_copy(update={"endpoint_url": endpoint})).put("key", b"ours", if_absent=True)

    assert [(r.operation, r.status) for r in server.requests(storage)] == [
        ("PutObject", 200),
        ("PutObject", 412),
        ("GetObject", 200),
    ]


def test_a_conditional_put_whose_answer_was_lost_still_loses_against_another(server: S3Server, storage: Storage) -> None:
    open_store(storage).put("key", b"another's")

    with loses_answer(server.port, rb"^PUT .*/key ") as endpoint, pytest.raises(AlreadyExists):
        open_store(storage.model_copy(update={"endpoint_url": endpoint})).put("key", b"ours", if_absent=True)


def test_an_upload_whose_last_answer_was_lost_is_a_success(server: S3Server, storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(40 << 20))

    with loses_answer(server.port, rb"^POST \S*uploadId=") as endpoint:
        open_store(storage.model_copy(update={"endpoint_url": endpoint})).upload(tmp_path / "source", "large")

    completions = [r.status for r in server.requests(storage) if r.operation == "CompleteMultipartUpload"]
    assert completions[0] == 200
    assert len(completions) == 2
    open_store(storage).download("large", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_a_body_that_ends_early_is_read_again(server: S3Server, storage: Storage) -> None:
    open_store(storage).put("key", bytes(1 << 20))

    with loses_answer(server.port, rb"^GET .*/key ") as endpoint:
        assert len(open_store(storage.model_copy(update={"endpoint_url": endpoint})).get("key")) == 1 << 20


def test_a_range_that_ends_early_is_read_again(server: S3Server, storage: Storage) -> None:
    open_store(storage).put("key", bytes(2 << 20))

    with loses_answer(server.port, rb"^GET .*/key ") as endpoint:
        assert len(open_store(storage.model_copy(update={"endpoint_url": endpoint})).get_range("key", 8, 1 << 20)) == 1 << 20


def test_nothing_of_an_interrupted_seal_can_be_found(server: S3Server, storage: Storage) -> None:
    store = open_store(storage, retry_seconds=0.5)
    with ThreadPoolExecutor(max_workers=1) as pool:
        sealing = pool.submit(seal, store, {f"{number}.bin": bytes(3_000_000) for number in range(12)})
        wait_until(lambda: server.requests(storage), "the first file")
        server.kill()
        with pytest.raises(Unavailable):
            sealing.result(timeout=60)
    server.start()

    assert find_artifact(open_store(storage), KIND, FINGERPRINT) is None
