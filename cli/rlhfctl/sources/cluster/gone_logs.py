"""The logs of pods that are gone, from the store: each stage's pod has put its own there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rlhf_api import RLHFRun
from rlhf_api.conventions.log_names import LogName
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.stage import RunRef
from rlhf_api.words import Phase, StageName
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.core.jobs.execution import compute_of, shards_of
from rlhf_store import AccessDenied, KeptLog, Store, StoreError, kept_logs, logs_folder
from rlhfctl.results.store import open_store_of
from rlhfctl.sources.source import LogNote, LogSelection, LogText, heading_of, prefix, selects

from .objects import PodView

_OWN_CREDENTIALS = "rlhfctl reads it with the credentials of your own environment (AWS_PROFILE, AWS_ACCESS_KEY_ID and so on)."


@dataclass(frozen=True)
class Gone:
    """Pods that were there and are no more."""

    name: LogName
    """With an index those of one shard or node, otherwise all of the attempt."""
    there: int = 0
    """Pods of this name that are still there: they began last."""
    begun: bool = True
    """False: for all that is to be seen in the cluster there may never have been one."""


def gone_logs(run: RLHFRun, pods: list[PodView], wanted: LogSelection) -> list[Gone]:
    """In the order of the run's stages; what its status and the pods that there are tell of others."""
    gone = []
    for number, stage in stages_of(run.status or RLHFRunStatus()):
        names = [LogName(stage.name, number or 0, attempt) for attempt in range(1, stage.attempt + 1)]
        for name in (name for name in names if selects(wanted, name)):
            there = [pod for pod in pods if replace(pod.log_name, index=None) == name]
            if there:
                gone += _replaced(name, there, _pods_of(run, stage.name))
            # The newest attempt of a stage at work may have no pod yet.
            elif name.attempt < stage.attempt or stage.phase not in (Phase.PENDING, Phase.RUNNING):
                gone.append(Gone(name))
    return gone


def read_gone(run: RLHFRun, gone: list[Gone]) -> Iterator[LogText | LogNote]:
    """What the store has of them, in their order; notes on what it has not, and where it cannot be read."""
    if not gone:
        return
    try:
        store = open_store_of(run)
        kept = kept_logs(store, _ref(run))
    except StoreError as error:
        yield LogNote(f"gone with their pods: {_listed(gone)}. Their logs cannot be read from the store. {_told(error)}")
        return
    lost = []
    for entry in gone:
        logs = _kept_of(entry, kept)
        for log in logs:
            yield from _read(store, log, run)
        if not logs and entry.begun:
            lost.append(entry)
    if lost:
        yield LogNote(
            f"gone with their pods: {_listed(lost)}. {store.url}/{logs_folder(_ref(run))} has no log of them: they never began, "
            "could not reach the store, or were killed before they put one."
        )


def kept_names(run: RLHFRun) -> list[str]:
    """The logs that the store has of the run; none where it cannot be read."""
    try:
        store = open_store_of(run, patience=1.0)
        return sorted({str(log.name) for log in kept_logs(store, _ref(run))})
    except StoreError:
        return []


def _replaced(name: LogName, there: list[PodView], indexes: int) -> list[Gone]:
    """Of an attempt that has pods: a Job starts lower indexes first, and a pod says how many of its index failed before it."""
    last = max((pod.index for pod in there if pod.index is not None), default=None)
    if last is None:
        return []
    gone = []
    for index in range(max(indexes, last + 1)):
        pods = [pod for pod in there if pod.index == index]
        if len(pods) <= max((pod.failed_before for pod in pods), default=0):
            gone.append(Gone(replace(name, index=index), len(pods), begun=index <= last))
    return gone


def _pods_of(run: RLHFRun, stage: StageName) -> int:
    """Shards, or nodes."""
    compute = compute_of(run.spec, stage)
    return shards_of(run.spec, stage) if compute is None else compute.nodes


def _kept_of(gone: Gone, kept: list[KeptLog]) -> list[KeptLog]:
    """Oldest first. The logs of pods that are there were put last; they are read from the pods."""
    whole = gone.name.index is None
    logs = [log for log in kept if (replace(log.name, index=None) if whole else log.name) == gone.name]
    logs.sort(key=lambda log: (log.name.index or 0, log.number))
    return logs[: max(0, len(logs) - gone.there)]


def _read(store: Store, log: KeptLog, run: RLHFRun) -> Iterator[LogText | LogNote]:
    try:
        content = store.get(log.key)
    except StoreError as error:
        yield LogNote(f"the log of a pod that is gone cannot be read. {_told(error)}")
        return
    title, before = heading_of(log.name), prefix(log.name, run.spec)
    yield LogText(title, "")
    # Not splitlines: a progress bar returns to the beginning of its line many times.
    lines = content.decode(errors="replace").split("\n")
    for line in lines if lines[-1] else lines[:-1]:
        yield LogText(title, before + line.removesuffix("\r") + "\n")


def _told(error: StoreError) -> str:
    return f"{error} {_OWN_CREDENTIALS}" if isinstance(error, AccessDenied) else str(error)


def _listed(gone: list[Gone]) -> str:
    names = [str(entry.name) for entry in gone]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _ref(run: RLHFRun) -> RunRef:
    return RunRef(namespace=run.metadata.namespace, name=run.metadata.name, uid=run.metadata.uid or "")
