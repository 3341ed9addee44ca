"""The quickstart's world and runs of it through rlhfctl: with its store on the S3 server, in a state folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from rlhf_api.resource.status import IterationStatus, RLHFRunStatus, StageStatus
from rlhf_api.resource.storage import Storage
from rlhf_api.words import ArtifactKind
from rlhf_operator.local.folder.records import AttemptRecord, PodRecord, read_records
from rlhf_store import Store
from support import processes
from support.rlhfctl import Done, environment
from support.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from support.waiting import wait_until

NAME = "quickstart"
#: Of the mini run, in order; the last part is the iteration, 0 for the run's own.
CHAIN = ("sft-0", "reward-0", "evaluate-0", "sample-1", "label-1", "reference-1", "train-1", "evaluate-1")


def make_world(folder: Path, *, size: str, storage: Storage | None = None) -> Path:
    """Model, data and manifest in `folder`, as `rlhfctl quickstart` has them made; the manifest."""
    command = [sys.executable, "-m", "rlhf_trainer.quickstart", "--folder", str(folder), "--size", size]
    command += ["--store", storage.url] if storage is not None else []
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = Path(done.stdout.splitlines()[-1])
    if storage is not None:
        write_manifest(manifest, read_manifest(manifest), {"spec.storage": storage.to_wire()})
    return manifest


def downloaded(store: Store, prefix: str, target: Path) -> Path:
    """Everything below a key, as a user would copy it."""
    for entry in store.list(f"{prefix}/"):
        file = target / entry.key.removeprefix(f"{prefix}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        store.download(entry.key, file)
    return target


def read_manifest(path: Path) -> dict[str, Any]:
    fields = yaml.safe_load(path.read_text())
    assert isinstance(fields, dict)
    return fields


def write_manifest(path: Path, manifest: Mapping[str, Any], changes: Mapping[str, Any]) -> Path:
    """`manifest`, with these fields changed by their paths, at `path`."""
    fields = deepcopy(dict(manifest))
    for field, value in changes.items():
        *parents, last = field.split(".")
        place = fields
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    return path


@dataclass(frozen=True)
class Case:
    """A run with a place of its own in the store and a state folder of its own; each `start` and `run` is the same command."""

    folder: Path
    manifest: Path
    server: S3Server
    storage: Storage

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "rlhfctl", "run", "--local", "--state", str(self.state), str(self.manifest)]

    def start(self, *, within: Sequence[str] = ()) -> subprocess.Popen[str]:
        """rlhfctl at work; what it says goes to a file. `within`: a command that runs it."""
        with self._said.open("w") as said:
            return subprocess.Popen(
                [*within, *self.command()],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def ended(self, process: subprocess.Popen[str], *, seconds: float = 600) -> Done:
        """Once it has ended by itself; stdout and stderr are one."""
        code = process.wait(timeout=seconds)
        return Done(code, self._said.read_text(), " ".join(self._said.read_text().split()))

    def run(self, *, within: Sequence[str] = ()) -> Done:
        process = self.start(within=within)
        try:
            return self.ended(process)
        finally:
            stop(process)

    def status(self) -> RLHFRunStatus:
        return RLHFRunStatus.model_validate_json((self.state / "runs" / NAME / "status.json").read_text())

    def stage(self, name: str) -> StageStatus:
        """`train-1`, `evaluate-0`."""
        return stages_of(self.status())[name]

    def attempts(self, name: str) -> list[AttemptRecord]:
        """What was started for a stage, oldest first, resolve Jobs too."""
        records = read_records(self.state / "runs" / NAME / "attempts").values()
        found = [record for record in records if f"{record.stage}-{record.iteration or 0}" == name]
        return sorted(found, key=lambda record: record.attempt)

    def pods(self, name: str) -> list[PodRecord]:
        """Processes that did the stage's own work, in order."""
        return [pod for record in self.attempts(name) if not record.resolving for pod in record.pods]

    def at_work(self, name: str, process: subprocess.Popen[str], *, index: int = 0, moment: str = "") -> int:
        """The pid of the stage's process in the midst of its work: when it has asked the store for a key with `moment` in it.
        Without a moment as soon as it is there, and stopped, for it may be about to end: `processes.kill` lets it go on.
        """
        asked = 0

        def found() -> int | None:
            nonlocal asked
            before = len(self.server.requests(self.storage))
            pid = self._process_of(name, index, process)
            asked = before if pid is None else asked
            return pid

        pid = wait_until(found, f"a process of stage {name}", seconds=600, every=0.1 if moment else 0.01)
        if moment:
            wait_until(
                lambda: any(moment in request.key for request in self.server.requests(self.storage)[asked:]),
                f"stage {name} to ask for {moment}",
                seconds=300,
                every=0.1,
            )
        else:
            os.kill(pid, signal.SIGSTOP)
        return pid

    def log(self, name: str) -> str:
        """All that all attempts of a stage have printed."""
        logs = sorted((self.state / "runs" / NAME / "logs").glob(f"{name}-*.log"))
        return "\n".join(path.read_text(errors="replace") for path in logs)

    def put(self, part: str) -> list[str]:
        """Every attempt to write a key that has `part` in it, by key."""
        writes = ("PutObject", "CompleteMultipartUpload")
        return [asked.key for asked in self.server.requests(self.storage) if asked.operation in writes and part in asked.key]

    def manifests(self) -> list[str]:
        """kind/fingerprint of the artifacts that were sealed here, one for each PUT that succeeded."""
        return [key.split("/", 1)[1].removesuffix("/manifest.json") for key in self.server.manifests_put(self.storage)]

    @property
    def _said(self) -> Path:
        return self.folder / "said.txt"

    def _process_of(self, name: str, index: int, process: subprocess.Popen[str]) -> int | None:
        assert process.poll() is None, f"rlhfctl ended before {name}: {self._said.read_text()}"
        for record in self.attempts(name):
            for pod in record.live:
                if pod.index == index and not record.resolving:
                    return processes.stage_of_pod(pod.uid)
        return None


#: Makes a case: of the artifacts of these stages, with these changes of the manifest.
MakeCase = Callable[..., Case]


@dataclass(frozen=True)
class SealedRun:
    """A whole run, once; each case takes over what it does not put to the test."""

    case: Case
    artifacts: Mapping[str, str]
    """kind/fingerprint by stage."""
    tokens: tuple[str, ...]
    """kind/fingerprint of what preflight prepared for sft and for reward."""

    def copy(self, storage: Storage, stages: Iterable[str]) -> None:
        """The artifacts of these stages to another place on the server, and the tokens that preflight prepared."""
        bucket, _, source = self.case.storage.url.removeprefix("s3://").partition("/")
        _, _, target = storage.url.removeprefix("s3://").partition("/")
        client = s3_client(self.case.server)
        for artifact in [*(self.artifacts[stage] for stage in stages), *self.tokens]:
            prefix = f"{source}/{artifact}/"
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", []):
                    key = target + entry["Key"].removeprefix(source)
                    client.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": entry["Key"]})


def stages_of(status: RLHFRunStatus) -> dict[str, StageStatus]:
    groups = [IterationStatus.model_construct(number=0, stages=status.stages), *status.iterations]
    return {f"{stage.name}-{group.number}": stage for group in groups for stage in group.stages}


def artifacts_of(status: RLHFRunStatus) -> dict[str, str]:
    """kind/fingerprint by stage."""
    return {name: "/".join(s.artifact.url.split("/")[-2:]) for name, s in stages_of(status).items() if s.artifact is not None}


def tokens_of(manifests: Iterable[str]) -> tuple[str, ...]:
    """Those of kind/fingerprint that are no stage's own: preflight prepared them."""
    return tuple(artifact for artifact in manifests if artifact.startswith(f"{ArtifactKind.TOKENS}/"))


def s3_client(server: S3Server) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}),
    )


def stop(process: subprocess.Popen[str]) -> None:
    """Nothing of a test outlives it."""
    if process.poll() is None:
        process.kill()
    process.wait()
