"""The state folder: `runs/<name>/{run.yaml,status.json,lock,logs/,attempts/}` and `store/`."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import yaml
from pydantic import ValidationError

from rlhf_api.conventions.file_urls import file_url
from rlhf_api.conventions.log_names import LogName
from rlhf_api.reading.unknown import mismatches
from rlhf_api.resource.run import RLHFRun, RLHFRunSpec
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase, StageName
from rlhf_operator.core.changes import immutable_changes, with_said_later
from rlhf_operator.core.cursor import stage_at_work
from rlhf_operator.core.observed import PodState
from rlhf_operator.local.errors import RunConflict, RunLocked, RunNotFound, StateUnusable, UnknownWords, writing
from rlhf_operator.local.events import Progress

from .files import write_atomically
from .lock import Holder, exclusive, holder, locked
from .progress import read_progress
from .records import read_record, unknown_in_records

#: What `delete` calls a run's folder. The state folder may be any: nothing else that lies in it has such a name.
_DELETED = re.compile(r"deleted-[0-9a-f]{32}")


class LocalState:
    """All runs of one folder. Reading needs no lock; `accept` and `save_status` belong to the holder of the run's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def store_url(self) -> str:
        """For a manifest without storage.url."""
        return file_url(self.folder / "store")

    def names(self) -> list[str]:
        return sorted(path.parent.name for path in self.folder.glob("runs/*/run.yaml"))

    def run_folder(self, name: str) -> Path:
        return self.folder / "runs" / name

    def load(self, name: str) -> RLHFRun:
        """The whole RLHFRun, as `kubectl get -o yaml` would print it; raises RunNotFound."""
        manifest = self.run_folder(name) / "run.yaml"
        try:
            fields = yaml.safe_load(manifest.read_text())
        except FileNotFoundError:
            raise RunNotFound(name, self.folder, self.names()) from None
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise StateUnusable(manifest, f"cannot be read ({error}); put the manifest back, or remove the folder") from error
        if not isinstance(fields, dict):
            raise StateUnusable(manifest, "holds no object; put the manifest back, or remove the folder")
        status = self.run_folder(name) / "status.json"
        try:
            fields["status"] = json.loads(status.read_text())
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError) as error:
            raise StateUnusable(status, f"cannot be read ({error}); remove it: finished stages are found in the store") from error
        try:
            return RLHFRun.model_validate(fields)
        except ValidationError as error:
            if (found := mismatches(error))[0].word:
                raise UnknownWords(name, manifest.parent, found, fields) from error
            problem = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            raise StateUnusable(manifest.parent, f"holds a run of another version of this program ({problem})") from error

    def holder(self, name: str) -> Holder | None:
        """The process that drives the run now, if any."""
        return holder(self.run_folder(name) / "lock")

    def check_free(self, name: str) -> None:
        """Raises RunLocked where a process drives the run now."""
        if (found := self.holder(name)) is not None:
            raise RunLocked(name, found.pid, found.host, found.since)

    def lock_file(self, name: str) -> Path:
        """Makes the run's folder."""
        folder = self.run_folder(name)
        with writing(folder):
            (folder / "logs").mkdir(parents=True, exist_ok=True)
        return folder / "lock"

    def log_files(
        self, name: str, *, iteration: int | None = None, stage: StageName | None = None, attempt: int | None = None
    ) -> list[Path]:
        """The logs, oldest first; narrowed to one stage, iteration (0: the stages of the run) or attempt."""
        logs = [path for path in (self.run_folder(name) / "logs").glob("*.log") if _matches(path, iteration, stage, attempt)]
        return sorted(logs, key=_written)

    def log_file(self, name: str, iteration: int | None, stage: StageName, attempt: int, shard: int | None) -> Path:
        """logs/<stage>-<iteration>-<attempt>[-<shard>].log; iteration 0 for the stages of the run."""
        return self.run_folder(name) / "logs" / f"{LogName(stage, iteration or 0, attempt, shard)}.log"

    def attempt_folder(self, name: str, iteration: int | None, stage: StageName, attempt: int) -> Path:
        """Configuration, results and progress of one attempt."""
        return self.run_folder(name) / "attempts" / f"{stage.value}-{iteration or 0}-{attempt}"

    def first_failure(self, name: str, iteration: int | None, stage: StageName, attempt: int) -> int | None:
        """Shard of the attempt's process that failed first; None where that is not known, or the attempt has one process."""
        record = read_record(self.attempt_folder(name, iteration, stage, attempt))
        if record is None or record.completions == 1:
            return None
        failed = [pod for pod in record.pods if pod.state is PodState.FAILED and pod.finished_at is not None]
        return min(failed, key=lambda pod: (pod.finished_at, pod.index)).index if failed else None

    def progress_of(self, run: RLHFRun) -> Progress | None:
        """Of the attempt at work."""
        current = None if run.status is None else stage_at_work(run.status)
        if current is None:
            return None
        iteration, stage = current
        return read_progress(self.attempt_folder(run.metadata.name, iteration, stage.name, stage.attempt))

    def accept(self, run: RLHFRun, now: datetime) -> RLHFRun:
        """Make the manifest the run's, as `kubectl apply` does; returns it with the status that it has.

        An unfinished run takes what may change and refuses the rest with RunConflict. A run that succeeded, applied unchanged,
        stays as it is. Any other finished run begins anew under a new uid; the stages that it finished are found in the store.
        What `edit` has written stays where the manifest does not say it, up to the moment in which the manifest is taken. Raises
        UnknownWords, with nothing changed, where another version wrote what this one does not know.
        """
        name = run.metadata.name
        self.lock_file(name)
        with self._editing(name):
            known = self.load(name) if name in self.names() else None
            if known is not None and (found := unknown_in_records(self.run_folder(name) / "attempts")):
                raise UnknownWords(name, self.run_folder(name), found, known.to_wire())
            if known is None or known.metadata.uid is None:
                return self._begin(run, now)
            phase = Phase.PENDING if known.status is None else known.status.phase
            run = run.model_copy(update={"spec": with_said_later(run.spec, known.spec, ended=phase.finished)})
            unchanged = known.spec == run.spec
            if phase.finished and not (unchanged and phase is Phase.SUCCEEDED):
                self._forget(name)
                return self._begin(run, now)
            return self._change(known, run.spec, run.metadata.annotations)

    def edit(self, name: str, change: Callable[[RLHFRunSpec], RLHFRunSpec]) -> RLHFRun:
        """Change what may change of a run's spec, as `kubectl edit` does, also while a process drives it: that one writes run.yaml
        only in `accept`, and reads it in each round. Raises RunNotFound, RunConflict.
        """
        with self._editing(name) if name in self.names() else nullcontext():
            known = self.load(name)
            return self._change(known, change(known.spec), known.metadata.annotations)

    def delete(self, name: str, now: datetime) -> None:
        """Remove the run with its logs and its report; its artifacts stay. Raises RunNotFound, RunLocked."""
        if name not in self.names():
            raise RunNotFound(name, self.folder, self.names())
        folder, gone = self.run_folder(name), self.folder / f"deleted-{uuid.uuid4().hex}"
        with locked(folder / "lock", name, now), self._editing(name), writing(folder):
            # In one step: there is no half of a run, and another of its name may begin at once.
            folder.rename(gone)
        # With the locks closed, for a network file system keeps what is open; and with what a delete that was killed has left.
        for left in self.folder.iterdir():
            if _DELETED.fullmatch(left.name):
                shutil.rmtree(left, ignore_errors=True)
        if gone.exists():
            raise StateUnusable(gone, f"what is left of run {name!r} cannot be removed whole; remove it by hand")

    def save_status(self, name: str, status: RLHFRunStatus) -> None:
        path = self.run_folder(name) / "status.json"
        with writing(path):
            write_atomically(path, (json.dumps(status.to_wire(), indent=2) + "\n").encode())

    def _editing(self, name: str) -> AbstractContextManager[None]:
        """Whoever reads run.yaml to write it again holds this."""
        return exclusive(self.run_folder(name) / "edit-lock")

    def _change(self, known: RLHFRun, spec: RLHFRunSpec, annotations: dict[str, str] | None) -> RLHFRun:
        """Only a change of the spec is a new generation."""
        generation = known.metadata.generation
        if spec != known.spec:
            generation = (generation or 0) + 1
        elif annotations == known.metadata.annotations:
            return known
        if fields := immutable_changes(known.spec, spec):
            raise RunConflict(known.metadata.name, fields)
        metadata = known.metadata.model_copy(update={"generation": generation, "annotations": annotations})
        changed = known.model_copy(update={"metadata": metadata, "spec": spec})
        self._save_manifest(changed)
        return changed

    def _begin(self, run: RLHFRun, now: datetime) -> RLHFRun:
        created = now.astimezone(UTC).replace(microsecond=0)
        update = {"uid": str(uuid.uuid4()), "generation": 1, "creation_timestamp": created}
        fresh = run.model_copy(update={"metadata": run.metadata.model_copy(update=update), "status": None})
        self._save_manifest(fresh)
        return fresh

    def _save_manifest(self, run: RLHFRun) -> None:
        fields = run.to_wire()
        fields.pop("status", None)
        path = self.run_folder(run.metadata.name) / "run.yaml"
        with writing(path):
            (path.parent / "logs").mkdir(parents=True, exist_ok=True)
            write_atomically(path, yaml.safe_dump(fields, sort_keys=False).encode())

    def _forget(self, name: str) -> None:
        status = self.run_folder(name) / "status.json"
        with writing(status):
            status.unlink(missing_ok=True)
        for part in ("attempts", "logs"):
            shutil.rmtree(self.run_folder(name) / part, ignore_errors=True)


def _written(path: Path) -> int:
    """When; 0 of one that has gone meanwhile."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _matches(path: Path, iteration: int | None, stage: StageName | None, attempt: int | None) -> bool:
    parts = path.stem.split("-")
    wanted = (stage and stage.value, iteration, attempt)
    return all(want is None or str(want) == part for want, part in zip(wanted, parts, strict=False))
