"""What is wrong with a bucket or its settings is told in words that name the setting to change."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rlhf_api.resource.storage import Storage
from rlhf_store import (
    AccessDenied,
    AlreadyExists,
    ConditionalWritesUnsupported,
    Corrupted,
    DiskFull,
    NoSuchBucket,
    NotFound,
    Store,
    StoreError,
    Unavailable,
    WrongEndpoint,
    WrongRegion,
    find_artifact,
    open_store,
)
from rlhf_store.backends.s3_errors import translate
from support.artifacts import FINGERPRINT, KIND
from support.s3 import ACCESS_KEY, BUCKET, S3Server

pytestmark = pytest.mark.s3

OPERATIONS: dict[str, Callable[[Store, Path], object]] = {
    "get": lambda store, _: store.get("key"),
    "get_range": lambda store, _: store.get_range("key", 0, 8),
    "head": lambda store, _: store.head("key"),
    "checksum": lambda store, _: store.checksum("key"),
    "put": lambda store, _: store.put("key", b"data"),
    "conditional put": lambda store, _: store.put("key", b"data", if_absent=True),
    "list": lambda store, _: list(store.list()),
    "upload": lambda store, scratch: store.upload(_file(scratch), "key"),
    "download": lambda store, scratch: store.download("key", scratch / "target"),
    "delete": lambda store, _: store.delete(["key"]),
    "check_writable": lambda store, _: store.check_writable(),
    "find_artifact": lambda store, _: find_artifact(store, KIND, FINGERPRINT),
}
each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())


@each_operation
def test_a_bucket_that_does_not_exist_is_named(
    s3_server: S3Server, tmp_path: Path, operation: Callable[[Store, Path], object]
) -> None:
    store = open_store(s3_server.storage(bucket="no-such-bucket"))

    with pytest.raises(NoSuchBucket, match=r"s3://no-such-bucket/.*spec\.storage\.url"):
        operation(store, tmp_path)


@each_operation
@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_denied_and_never_repeated(
    s3_storage: Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    operation: Callable[[Store, Path], object],
) -> None:
    monkeypatch.setenv(variable, "wrong-and-confidential")
    caplog.set_level(logging.INFO)

    with pytest.raises(AccessDenied, match="AWS_SECRET_ACCESS_KEY") as caught:
        operation(open_store(s3_storage), tmp_path)

    assert caught.value.configuration
    assert "confidential" not in str(caught.value) + caplog.text


def test_absent_credentials_say_how_to_give_them(s3_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(AccessDenied, match=r"no credentials.*AWS_ACCESS_KEY_ID"):
        open_store(s3_storage).get("key")


def test_a_profile_that_does_not_exist_is_no_bug_of_ours(s3_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")

    with pytest.raises(AccessDenied, match="AWS_PROFILE"):
        open_store(s3_storage)


@pytest.mark.parametrize("changes", [{"endpoint_url": "http://no server"}, {"region": "no region"}])
def test_an_endpoint_or_region_that_is_none_is_told_before_anything_is_asked(s3_storage: Storage, changes: dict[str, str]) -> None:
    with pytest.raises(WrongEndpoint, match="endpointURL"):
        open_store(s3_storage.model_copy(update=changes))


def test_no_message_or_log_holds_a_credential(s3_server: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    url = s3_server.endpoint_url.replace("http://", f"https://{ACCESS_KEY}-user:password@")
    store = open_store(s3_server.storage().model_copy(update={"endpoint_url": url}), retry_seconds=0)

    with pytest.raises(StoreError) as caught:
        store.get("key")
    assert "password" not in str(caught.value) + caplog.text


def test_a_read_only_server_denies_the_probe(s3_server: S3Server, tmp_path: Path) -> None:
    """The same data behind a server that only reads: what preflight must find out before a GPU is asked for."""
    server = S3Server(tmp_path / "s3").start()
    try:
        server.create_bucket(BUCKET)
        server.stop()
        server.start("--readonly")
        with pytest.raises(AccessDenied):
            open_store(server.storage()).check_writable()
    finally:
        server.stop()


def test_a_bucket_in_another_region_is_found_where_the_server_tells_it(s3_storage: Storage) -> None:
    store = open_store(s3_storage.model_copy(update={"region": "eu-west-3"}))

    store.put("key", b"data", if_absent=True)

    assert store.get("key") == b"data"


def test_a_server_without_tls_is_a_wrong_endpoint_and_not_tried_for_minutes(s3_server: S3Server) -> None:
    url = s3_server.endpoint_url.replace("http://", "https://")
    store = open_store(s3_server.storage().model_copy(update={"endpoint_url": url}))

    with pytest.raises(WrongEndpoint, match=r"spec\.storage\.endpointURL"):
        store.get("key")


def test_a_name_that_no_bucket_can_have_is_refused(s3_server: S3Server) -> None:
    with pytest.raises(NoSuchBucket):
        open_store(s3_server.storage(bucket="A_")).get("key")


@pytest.mark.parametrize("damage", [b"short", b"as long as before, other"], ids=["truncated", "changed"])
def test_an_object_that_changed_on_the_server_is_corrupted(s3_server: S3Server, tmp_path: Path, damage: bytes) -> None:
    storage = s3_server.storage()
    store = open_store(storage)
    store.put("key", b"as long as before, right")
    s3_server.object_file(f"{storage.url}/key").write_bytes(damage)

    with pytest.raises(Corrupted, match=r"/key: .*[Ee]xpected .*"):
        store.get("key")
    with pytest.raises(Corrupted, match=r"/key: .*[Ee]xpected .*"):
        store.download("key", tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("status", [200, 501])
def test_a_server_without_conditional_writes_is_refused_by_the_probe(s3_server: S3Server, status: int) -> None:
    """The one thing that the real server cannot show, for it honours If-None-Match: this one ignores or refuses it."""
    with _server_without_conditions(status) as port:
        storage = Storage(url=f"s3://{BUCKET}/folder", endpoint_url=f"http://127.0.0.1:{port}", region="us-east-1")

        with pytest.raises(ConditionalWritesUnsupported, match="If-None-Match") as caught:
            open_store(storage).check_writable()
    assert caught.value.configuration


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchKey", NotFound),
        (404, "NoSuchBucket", NoSuchBucket),
        (404, "NoSuchUpload", StoreError),
        (412, "PreconditionFailed", AlreadyExists),
        (403, "AccessDenied", AccessDenied),
        (403, "AllAccessDisabled", AccessDenied),
        (401, "Unauthorized", AccessDenied),
        (403, "RequestTimeTooSkewed", AccessDenied),
        (301, "PermanentRedirect", WrongRegion),
        (400, "AuthorizationHeaderMalformed", WrongRegion),
        (400, "IllegalLocationConstraintException", WrongRegion),
        (500, "InternalError", Unavailable),
        (503, "SlowDown", Unavailable),
        (429, "TooManyRequests", Unavailable),
        (409, "ConditionalRequestConflict", Unavailable),
        (507, "XMinioStorageFull", DiskFull),
        (400, "InvalidArgument", StoreError),
    ],
)
def test_each_answer_of_s3_has_its_error(status: int, code: str, expected: type[StoreError]) -> None:
    answer: Any = {"Error": {"Code": code, "Message": "Said the server."}, "ResponseMetadata": {"HTTPStatusCode": status}}

    error = translate(ClientError(answer, "GetObject"), "s3://bucket/key")

    assert type(error) is expected
    assert str(error).startswith("s3://bucket/key: ")
    assert f"({code}: Said the server)" in str(error)


@contextmanager
def _server_without_conditions(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(status)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(200, b"<DeleteResult/>")

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _file(folder: Path) -> Path:
    path = folder / "source"
    path.write_bytes(b"data")
    return path


def test_certificates_of_ones_own_authority_are_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod has spec.storage.caBundle there; without it the message says what to set."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    (tmp_path / "server").mkdir()
    server = S3Server(tmp_path / "server").start()
    try:
        server.create_bucket(BUCKET)
        server.stop()
        server.start("--cert", str(certificate), "--key", str(key))
        storage = server.storage().model_copy(update={"endpoint_url": server.endpoint_url.replace("http:", "https:")})
        with pytest.raises(WrongEndpoint, match=r"spec\.storage\.caBundle in a cluster, the environment variable AWS_CA_BUNDLE"):
            open_store(storage).put("key", b"data")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        open_store(storage).put("key", b"data")
        # On a connection of its own: over TLS this server may take what follows a PUT with Expect: 100-continue for part of it.
        assert open_store(storage).get("key") == b"data"
    finally:
        server.stop()
