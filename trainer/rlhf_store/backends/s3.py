"""s3://: AWS, and every server that speaks its API and honours `If-None-Match: *`."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from s3transfer.manager import TransferManager

from rlhf_api.resource.storage import Storage
from rlhf_store.errors import Corrupted, NotFound, StoreError, WrongEndpoint
from rlhf_store.file_errors import local_errors
from rlhf_store.store import ObjectInfo, check_key, probe

from .retry import Retries
from .s3_errors import S3_ERRORS, TRANSPORT_ERRORS, translate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MEBIBYTE = 1 << 20
#: One multi-part transfer saturates a few connections; several files share the same pool of requests.
_TRANSFER = TransferConfig(
    multipart_threshold=16 * _MEBIBYTE,
    multipart_chunksize=16 * _MEBIBYTE,
    max_concurrency=16,
    num_download_attempts=3,
)
_KEYS_PER_DELETE = 1000
#: What a server may keep of an object, the strongest first. An ETag says less: each write of an encrypted object has another.
_CHECKSUMS = ("ChecksumSHA256", "ChecksumSHA1", "ChecksumCRC64NVME", "ChecksumCRC32C", "ChecksumCRC32")


class S3Store:
    def __init__(self, storage: Storage, *, retry_seconds: float) -> None:
        bucket, _, prefix = storage.url.removeprefix("s3://").partition("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._url = storage.url
        # Whoever opens a store may have no such profile, or an endpoint that is no address.
        with self._errors(""):
            self._client = _client(storage)
        # Ours instead of botocore's: that one counts attempts, and a server that restarts needs seconds.
        self._client.meta.events.register_first("needs-retry.s3", Retries(retry_seconds))  # type: ignore[arg-type]
        self._transfers = TransferManager(self._client, _TRANSFER)
        # SHA-256 beside the data, which the server compares and keeps; AWS_REQUEST_CHECKSUM_CALCULATION=when_required
        # turns it off for servers that do not know it.
        wanted = self._client.meta.config.request_checksum_calculation != "when_required"  # type: ignore[attr-defined]
        self._checksum: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"} if wanted else {}

    @property
    def url(self) -> str:
        return self._url

    def get(self, key: str) -> bytes:
        with self._errors(key):
            return self._read(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        with self._errors(key):
            try:
                return self._read(key, Range=f"bytes={start}-{start + length - 1}")
            except ClientError as error:
                # Nothing of the object lies there.
                if error.response["ResponseMetadata"].get("HTTPStatusCode") == 416:
                    return b""
                raise

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        with self._errors(key, conditional=if_absent):
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, **condition, **self._checksum)
            except ClientError as error:
                # An answer that was lost: our first request made the object, the second one found it.
                if self._was_repeated(error) and self._is_refused(error) and self.get(key) == data:
                    return
                raise

    def head(self, key: str) -> ObjectInfo | None:
        try:
            with self._errors(key):
                return ObjectInfo(key, self._client.head_object(Bucket=self._bucket, Key=self._key(key))["ContentLength"])
        except NotFound:
            self._see_bucket()
            return None

    def checksum(self, key: str) -> str:
        try:
            with self._errors(key):
                found: Any = self._client.head_object(Bucket=self._bucket, Key=self._key(key), ChecksumMode="ENABLED")
        except NotFound:
            self._see_bucket()
            raise
        kept = next((name for name in _CHECKSUMS if found.get(name)), None)
        if kept is not None:
            return f"{kept.removeprefix('Checksum').lower()}:{found[kept]}"
        return f"etag:{found['ETag'].strip(chr(34))}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix))
        while True:
            with self._errors(prefix):
                page = next(pages, None)
            if page is None:
                return
            for entry in page.get("Contents", []):
                yield ObjectInfo(entry["Key"].removeprefix(self._prefix), entry["Size"])

    def upload(self, path: Path, key: str) -> None:
        size = path.stat().st_size
        with self._errors(key):
            try:
                self._transfers.upload(str(path), self._bucket, self._key(key), extra_args=self._checksum).result()
            except ClientError as error:
                # The answer to the last request of a multi-part upload was lost, and the upload is complete.
                if error.response["Error"]["Code"] != "NoSuchUpload" or self.head(key) != ObjectInfo(key, size):
                    raise

    def download(self, key: str, path: Path) -> None:
        with local_errors(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            with self._errors(key), local_errors(str(path)):
                future = self._transfers.download(self._bucket, self._key(key), str(part))
                future.result()
                expected, found = future.meta.size, part.stat().st_size
                if found != expected:
                    raise Corrupted(f"read {found} of {expected} bytes", f"{self._url}/{key}")
                part.replace(path)
        except NotFound:
            self._see_bucket()
            raise
        finally:
            part.unlink(missing_ok=True)

    def delete(self, keys: Iterable[str]) -> None:
        todo = [self._key(key) for key in keys]
        for start in range(0, len(todo), _KEYS_PER_DELETE):
            some = todo[start : start + _KEYS_PER_DELETE]
            with self._errors(some[0].removeprefix(self._prefix)):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in some], "Quiet": True}
                )
                for failed in answer.get("Errors", []):
                    response: Any = {"Error": {"Code": failed.get("Code", ""), "Message": failed.get("Message", "")}}
                    raise ClientError(response, "DeleteObjects")

    def check_writable(self) -> None:
        probe(self)

    def _read(self, key: str, **options: Any) -> bytes:
        attempts = _TRANSFER.num_download_attempts
        while True:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key), **options)
            body = answer["Body"]
            if "Range" in options and "ContentRange" not in answer:
                body.close()
                url = f"{self._url}/{key}"
                raise StoreError(
                    "the server answers a request for a part with the whole object", url, "Use one that honours Range."
                )
            try:
                return body.read()
            except TRANSPORT_ERRORS:
                # The headers came, the rest did not; a server that is away now is waited for by the next request.
                attempts -= 1
                if attempts == 0:
                    raise

    def _see_bucket(self) -> None:
        """The answer 404 to a HEAD does not say whether the object, the bucket or the user is unknown; this one does."""
        with self._errors(""):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    @contextmanager
    def _errors(self, key: str, *, conditional: bool = False) -> Iterator[None]:
        url = f"{self._url}/{key}" if key else self._url
        try:
            yield
        except StoreError:
            raise
        except S3_ERRORS as error:
            raise translate(error, url, conditional=conditional) from error

    @staticmethod
    def _was_repeated(error: ClientError) -> bool:
        return error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0

    @staticmethod
    def _is_refused(error: ClientError) -> bool:
        return error.response["ResponseMetadata"].get("HTTPStatusCode") == 412


def _client(storage: Storage) -> S3Client:
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=2 * _TRANSFER.max_request_concurrency,
        retries={"mode": "standard", "total_max_attempts": 1},
        s3={"addressing_style": storage.addressing_style.value.lower()},  # type: ignore[arg-type]
        tcp_keepalive=True,
    )
    try:
        return boto3.session.Session().client("s3", endpoint_url=storage.endpoint_url, region_name=storage.region, config=config)
    except ValueError as error:
        raise WrongEndpoint("its endpointURL or its region is none", storage.url) from error
