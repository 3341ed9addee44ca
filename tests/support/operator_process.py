"""The operator as a process of its own, as a pod would run it: started, asked over HTTP, stopped, killed, frozen."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol, Self

from support.waiting import wait_until

IMAGE = "example/rlhf-operator:test"
#: Starting python takes seconds where others work beside it.
_PATIENCE_SECONDS = 180.0


class Process(Protocol):
    """What is needed of a subprocess.Popen."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class OperatorProcess:
    """`python -m rlhf_operator.kubernetes` with settings that suit tests; `settings` are RLHF_OPERATOR_* without the prefix.

    Without `namespaces` it works on every run of the cluster, those of other tests too.
    """

    def __init__(self, folder: Path, kubeconfig: Path, namespaces: Sequence[str], **settings: str) -> None:
        self.namespaces = tuple(namespaces)
        self.log = folder / f"operator-{settings.get('IDENTITY', 'only')}.log"
        self.settings = {
            "NAMESPACES": ",".join(namespaces),
            "IMAGE": IMAGE,
            "LEASE_NAMESPACE": next(iter(namespaces), "default"),
            "LEASE_SECONDS": "15",
            "IDENTITY": "only",
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": "0",
            **settings,
        }
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RLHF_", "KUBE"))},
            **{f"RLHF_OPERATOR_{name}": value for name, value in self.settings.items()},
            "KUBECONFIG": str(kubeconfig),
            "HOME": str(folder),
        }
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.process.send_signal(signal.SIGCONT)
            self.kill()

    def start(self, *, ready: bool = True) -> OperatorProcess:
        """Start it, once more after it ended; it is back when it can be counted on."""
        assert not self.running
        with self.log.open("ab") as log:
            self._from = log.tell()
            self._process = self._spawn(log)
        try:
            if ready:
                self.wait_ready()
        except BaseException:
            # Whoever enters a context that cannot be entered never leaves it.
            self.kill()
            raise
        return self

    def _spawn(self, log: IO[bytes]) -> Process:
        return subprocess.Popen(
            [sys.executable, "-m", "rlhf_operator.kubernetes"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # --- what it says ---

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.running, self.last_words()
            with suppress(OSError, LookupError):
                return self.get("/readyz")[0] == 200
            return False

        wait_until(ready, "the operator to be ready", seconds=_PATIENCE_SECONDS, every=0.1)

    def wait_leading(self, seconds: float = _PATIENCE_SECONDS) -> None:
        wait_until(lambda: self.leading, "the operator to hold the Lease", seconds=seconds, every=0.1)

    @property
    def leading(self) -> bool:
        return self.get("/readyz") == (200, "ok, leader")

    @property
    def url(self) -> str:
        """LookupError where it has not told its port yet."""
        addresses = [line["address"] for line in self.lines() if "address" in line]
        if not addresses:
            raise LookupError(self.log)
        return f"http://127.0.0.1:{addresses[0].rpartition(':')[2]}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and text. OSError where it does not answer; LookupError where it has not told its port yet."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode().strip()

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of that name that have these labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            match = re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line)
            if match and match[1] == name:
                found = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                if labels.items() <= found.items():
                    total += float(match[3])
        return total

    def requests(self) -> set[tuple[str, str]]:
        """(verb, resource) of everything that it has asked of the API server."""
        page = self.get("/metrics")[1]
        found = re.findall(r"^rlhf_api_requests_total\{(.*)\}", page, re.MULTILINE)
        series = [dict(re.findall(r'(\w+)="([^"]*)"', labels)) for labels in found]
        return {(labels["verb"], labels["resource"]) for labels in series}

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged since it was started last, each line an object; what is no JSON fails the test that asks."""
        with self.log.open("rb") as log:
            log.seek(self._from)
            *whole, _ = log.read().split(b"\n")
        return [json.loads(line) for line in whole]

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    # --- what is done to it ---

    def stop(self) -> int:
        """SIGTERM, as a kubelet does; its exit code."""
        self.process.terminate()
        return self.process.wait(_PATIENCE_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(_PATIENCE_SECONDS)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def errors(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What of a log no undisturbed operator would say."""
    return [line for line in lines if line["level"] in ("WARNING", "ERROR", "CRITICAL")]
