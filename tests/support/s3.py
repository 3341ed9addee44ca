"""A real S3 server (versitygw) on this machine: its own port, its own folders, its access log as evidence."""

from __future__ import annotations

import base64
import random
import re
import signal
import socket
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
from botocore.config import Config

from rlhf_api.resource.storage import AddressingStyle, Storage
from support.binaries import versitygw
from support.waiting import wait_until

ACCESS_KEY, SECRET_KEY = "test", "testtest"
#: As it may be told: in the clear, and as a Secret's object has it.
SECRET_FORMS = (SECRET_KEY, base64.b64encode(SECRET_KEY.encode()).decode())
REGION = "us-east-1"
BUCKET = "rlhf-test"

#: For programs and libraries that look for S3 in their environment: nothing of the machine's own configuration, and no search for a
#: cloud's metadata service.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}

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


class S3Place:
    """What a server keeps in one folder, and what it answers: whoever knows the folder and the address can look."""

    def __init__(self, folder: Path, endpoint_url: str, *, region: str = REGION) -> None:
        self.endpoint_url = endpoint_url
        self.access_log = folder / "access.log"
        # The server refuses metadata under a path that begins with the data's path.
        self._data, self._metadata = folder / "data", folder / "metadata"
        self._region = region

    def command(self, *options: str) -> list[str | Path]:
        """The server, as it is started; its folders are made first."""
        for folder in (self._data, self._metadata):
            folder.mkdir(parents=True, exist_ok=True)
        listen = urlsplit(self.endpoint_url).netloc
        keys = ["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", self._region, "--port", listen]
        answers = ["--quiet", "--keep-alive", "--access-log", str(self.access_log), *options]
        return [versitygw(), *keys, *answers, "posix", "--sidecar", str(self._metadata), str(self._data)]

    def answers(self) -> bool:
        """It takes connections."""
        address = urlsplit(self.endpoint_url)
        try:
            with socket.create_connection((address.hostname, address.port), timeout=1):
                return True
        except OSError:
            return False

    def create_bucket(self, name: str) -> None:
        self._client().create_bucket(Bucket=name)

    def create_folder(self, url: str) -> None:
        """As a console makes s3://bucket/key: an object without content, whose name ends in a slash."""
        parts = urlsplit(url)
        self._client().put_object(Bucket=parts.netloc, Key=f"{parts.path.strip('/')}/")

    def _client(self) -> Any:
        # It is on this machine, whatever proxy leads out of it.
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3}, proxies={})
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self._region,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=config,
        )

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
        lines = self.access_log.read_text(encoding="utf-8").splitlines() if self.access_log.exists() else []
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


class S3Server(S3Place):
    """Can be stopped, killed, paused and started again on the same data and the same port."""

    def __init__(self, folder: Path, *, region: str = REGION) -> None:
        self.port = _free_port()
        super().__init__(folder, f"http://127.0.0.1:{self.port}", region=region)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, *options: str) -> S3Server:
        """`options` of versitygw count until it is stopped."""
        if self._process is not None:
            raise AssertionError("the server runs already")
        with (self._folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                self.command(*options), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(self._is_up, f"the S3 server on port {self.port}: {self._folder / 'server.log'}")
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

    def _is_up(self) -> bool:
        if self._running().poll() is not None:
            raise AssertionError(f"the S3 server ended: {(self._folder / 'server.log').read_text()[-2000:]}")
        return self.answers()


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
