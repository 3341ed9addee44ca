"""Of an object a part, or only what the server keeps of it: what servers may answer that the real one here does not."""

from __future__ import annotations

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler

import pytest

from rlhf_api.resource.storage import Storage
from rlhf_store import Store, StoreError, open_store
from support.http_server import serving
from support.s3 import ENVIRONMENT

pytestmark = pytest.mark.s3

CONTENT = b"0123456789"
ETAG = {"ETag": '"abc-3"'}


def server_that_keeps(headers: Mapping[str, str]) -> type[BaseHTTPRequestHandler]:
    """One object, of which it tells these headers; it knows no ranges."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            for name, value in (("Content-Length", str(len(CONTENT))), *headers.items()):
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(CONTENT)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def store_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return open_store(Storage(url="s3://bucket/folder", endpoint_url=endpoint, region="us-east-1"), retry_seconds=1)


@pytest.mark.parametrize(
    ("headers", "checksum"),
    [
        (ETAG, "etag:abc-3"),
        (ETAG | {"x-amz-checksum-crc64nvme": "EYfZ6+g5kmA="}, "crc64nvme:EYfZ6+g5kmA="),
        (ETAG | {"x-amz-checksum-sha256": "Cey2-2", "x-amz-checksum-crc32": "Xg5djw=="}, "sha256:Cey2-2"),
    ],
)
def test_the_strongest_checksum_counts_and_the_etag_where_there_is_none(
    headers: Mapping[str, str], checksum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(server_that_keeps(headers)) as endpoint:
        assert store_at(endpoint, monkeypatch).checksum("key") == checksum


def test_a_server_without_ranges_is_refused_instead_of_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(server_that_keeps(ETAG)) as endpoint, pytest.raises(StoreError, match=r"/folder/key: .*whole object.*Range"):
        store_at(endpoint, monkeypatch).get_range("key", 8, 2)
