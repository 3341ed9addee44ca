"""Objects of the API server as the CLI reads them. Pure: raw JSON in, RLHFRun, PodView and EventView out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from rlhf_api import RLHFRun
from rlhf_api.conventions.log_names import LogName
from rlhf_api.reading.unknown import in_words, mismatches
from rlhf_api.words import StageName
from rlhf_operator.kubernetes.objects.labels import (
    ATTEMPT_LABEL,
    COMPLETION_INDEX,
    IGNORED_FAILURES,
    INDEX_FAILURES,
    ITERATION_LABEL,
    RUN_UID_LABEL,
    STAGE_CONTAINER,
    STAGE_LABEL,
)
from rlhfctl.errors import OtherVersion

_BEFORE = datetime(1, 1, 1, tzinfo=UTC)


def parse_run(raw: Mapping[str, Any]) -> RLHFRun:
    """What this version knows of the run; fields that a newer operator's CRD has beside are passed over.

    Raises:
        OtherVersion: what this version knows is not there, or is something else.
    """
    known: dict[str, Any] = copy.deepcopy(dict(raw))
    known["metadata"].pop("managedFields", None)
    try:
        return RLHFRun.model_validate(known)
    except ValidationError as error:
        unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
    for loc in unknown:
        _remove(known, loc)
    try:
        return RLHFRun.model_validate(known)
    except ValidationError as error:
        name = known["metadata"].get("name")
        raise OtherVersion(
            f"run {name!r} is of another version of the API than this rlhfctl",
            why=in_words(mismatches(error)),
            hints=("update rlhfctl to the version of the operator", f"kubectl get rlhfrun {name} -o yaml"),
            raw=raw,
        ) from error


@dataclass(frozen=True)
class PodView:
    """One pod of a stage."""

    name: str
    uid: str
    run_uid: str
    iteration: int
    """0: of the run."""
    stage: StageName
    attempt: int
    index: int | None
    failed_before: int
    """Pods of its index in the same Job, which replaced them."""
    created: datetime
    started: bool
    """There is a log."""
    ended: bool
    waits_for: str
    """Why it has not started, in the cluster's words; may be empty."""

    @property
    def log_name(self) -> LogName:
        return LogName(self.stage, self.iteration, self.attempt, self.index)


def pod_view(raw: Mapping[str, Any]) -> PodView | None:
    """None: the pod is none of a stage."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    try:
        stage, attempt, iteration = StageName(labels[STAGE_LABEL]), int(labels[ATTEMPT_LABEL]), int(labels[ITERATION_LABEL])
    except (KeyError, ValueError):
        return None
    state = _stage_state(status)
    index = annotations.get(COMPLETION_INDEX)
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        run_uid=labels.get(RUN_UID_LABEL, ""),
        iteration=iteration,
        stage=stage,
        attempt=attempt,
        index=None if index is None else int(index),
        failed_before=sum(int(annotations.get(name, 0)) for name in (INDEX_FAILURES, IGNORED_FAILURES)),
        created=_time(metadata.get("creationTimestamp")),
        started="running" in state or "terminated" in state,
        ended="terminated" in state or status.get("phase") in ("Succeeded", "Failed"),
        waits_for=_waits_for(status, state),
    )


@dataclass(frozen=True)
class EventView:
    """One Event of the cluster."""

    uid: str
    kind: str
    """Of the object that it is about."""
    name: str
    about: str
    """uid of that object."""
    time: datetime
    type: str
    """Normal or Warning."""
    reason: str
    message: str
    count: int
    version: int
    """The cluster's count of its writes, at the last of this Event: the order among those of one second."""


def event_view(raw: Mapping[str, Any]) -> EventView:
    about, series = raw.get("involvedObject") or {}, raw.get("series") or {}
    times = (series.get("lastObservedTime"), raw.get("lastTimestamp"), raw.get("eventTime"), raw.get("firstTimestamp"))
    created = raw["metadata"].get("creationTimestamp")
    return EventView(
        uid=raw["metadata"]["uid"],
        kind=about.get("kind", ""),
        name=about.get("name", ""),
        about=about.get("uid", ""),
        time=_time(next((time for time in times if time), created)),
        type=raw.get("type") or "Normal",
        reason=raw.get("reason") or "",
        message=" ".join((raw.get("message") or "").split()),
        count=series.get("count") or raw.get("count") or 1,
        version=int(raw["metadata"].get("resourceVersion") or 0),
    )


def _remove(tree: Any, loc: tuple[int | str, ...]) -> None:
    """Where a place is no path of the object (pydantic names members of unions too), the next validation says so."""
    try:
        for key in loc[:-1]:
            tree = tree[key]
        del tree[loc[-1]]
    except (KeyError, IndexError, TypeError):
        return


def _time(text: str | None) -> datetime:
    return datetime.fromisoformat(text) if text else _BEFORE


def _stage_state(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for container in status.get("containerStatuses") or ():
        if container.get("name") == STAGE_CONTAINER:
            state: Mapping[str, Any] = container.get("state") or {}
            return state
    return {}


def _waits_for(status: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    waiting = state.get("waiting") or {}
    if waiting:
        return ": ".join(part for part in (waiting.get("reason"), waiting.get("message")) if part)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return ": ".join(part for part in (condition.get("reason"), condition.get("message")) if part)
    return ""
