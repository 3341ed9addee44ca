"""A real S3 server (versitygw) on this machine: its own port, its own folders, its access log as evidence."""

from __future__ import annotations

import random
import re
import signal
import socket
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import boto3
from botocore.config import Config

from rlhf_api.storage import AddressingStyle, Storage
from support.binaries import versitygw
from support.waiting import wait_until

ACCESS_KEY, SECRET_KEY = "test", "testtest"
REGION = "us-east-1"
BUCKET = "rlhf-test"

_LOG_LINE = re.compile(r"^\S+ \S+ \[[^]]*\] \S+ \S+ \S+ (?P<operation>\S+) .*? (?P<uri>/\S*) (?P<status>\d{3}) (?P<error>\S+) ")


@dataclass(frozen=True)
class Request:
    """One line of the server's access log."""

    operation: str
    """PutObject, GetObject, UploadPart, ListObjectsV2, …"""
    bucket: str
    key: str
    status: int
    error: str | None


class S3Server:
    """Can be stopped, killed, paused and started again on the same data and the same port."""

    def __init__(self, folder: Path, *, region: str = REGION) -> None:
        self._folder = folder
        # The server refuses metadata under a path that begins with the data's path.
        self._data, self._metadata = folder / "data", folder / "metadata"
        self._log = folder / "access.log"
        self._region = region
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self._data.mkdir(parents=True)
        self._metadata.mkdir()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *options: str) -> S3Server:
        """`options` of versitygw count until it is stopped."""
        if self._process is not None:
            raise AssertionError("the server runs already")
        arguments = ["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", self._region, "--port", f"127.0.0.1:{self.port}"]
        arguments += ["--quiet", "--keep-alive", "--access-log", str(self._log), *options]
        with (self._folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                [versitygw(), *arguments, "posix", "--sidecar", str(self._metadata), str(self._data)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers, f"the S3 server on port {self.port}: {self._folder / 'server.log'}")
        return self

    def ensure_running(self) -> None:
        """After a test that may have failed while it was away."""
        if self._process is None:
            self.start()

    def stop(self) -> None:
        """As an operator stops it; a server that does not run is stopped."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        self._running().send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def create_bucket(self, name: str) -> None:
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3})
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self._region,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=config,
        )
        client.create_bucket(Bucket=name)

    def storage(self, *, bucket: str = BUCKET, prefix: str | None = None) -> Storage:
        """A part of the bucket that is nobody else's, unless `prefix` says which."""
        return Storage(
            url=f"s3://{bucket}/{prefix or uuid.uuid4().hex}",
            endpoint_url=self.endpoint_url,
            region=self._region,
            addressing_style=AddressingStyle.PATH,
        )

    def object_file(self, url: str) -> Path:
        """The file on this machine that holds the object s3://bucket/key, to be damaged."""
        parts = urlsplit(url)
        return self._data / parts.netloc / parts.path.lstrip("/")

    def requests(self, storage: Storage | None = None) -> list[Request]:
        """Every request that was answered so far, in that order; of one storage, those of its keys."""
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        found = [request for line in lines if (request := _parse(line)) is not None]
        if storage is None:
            return found
        bucket, _, prefix = storage.url.removeprefix("s3://").partition("/")
        return [request for request in found if request.bucket == bucket and request.key.startswith(f"{prefix}/")]

    def manifests_put(self, storage: Storage | None = None) -> list[str]:
        """The keys of manifests that were written, one for each PUT that succeeded."""
        return [
            request.key
            for request in self.requests(storage)
            if request.operation == "PutObject" and request.status == 200 and request.key.endswith("/manifest.json")
        ]

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(by)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise AssertionError("the server does not run")
        return self._process

    def _answers(self) -> bool:
        if self._running().poll() is not None:
            raise AssertionError(f"the S3 server ended: {(self._folder / 'server.log').read_text()[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


def _parse(line: str) -> Request | None:
    match = _LOG_LINE.match(line)
    if match is None:
        return None
    bucket, _, key = unquote(match["uri"].partition("?")[0]).lstrip("/").partition("/")
    error = None if match["error"] == "-" else match["error"]
    return Request(match["operation"].removeprefix("s3_"), bucket, key, int(match["status"]), error)


def _free_port() -> int:
    """Below the range from which the kernel gives ports to clients, so that it stays free while the server is down."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
