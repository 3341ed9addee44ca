"""From a manifest file to a run in the cluster: created, or changed where a run of that name may change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rlhf_api import RLHFRun
from rlhf_operator.core.changes import immutable_changes, with_said_later
from rlhfctl.errors import FOUND_AGAIN, Conflict, NotFound, UsageProblem
from rlhfctl.sources.cluster.applying import merge_patch
from rlhfctl.sources.cluster.source import ClusterSource
from rlhfctl.sources.source import command_for, phase_of

from .manifests import Checked, check

#: What of a manifest's metadata is its author's; the rest of an exported object is the server's.
_OWN_METADATA = ("name", "labels", "annotations")


class DryRun(StrEnum):
    NONE = "none"
    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True)
class Submitted:
    run: RLHFRun
    done: str
    """As kubectl says it: created, configured, unchanged."""


def submit(source: ClusterSource, file: str, dry_run: DryRun) -> Submitted:
    """Validate, then create or change.

    Raises:
        NotFound, Refused: as `check` does; and in the API server's words, where it refuses what we let pass.
        UsageProblem: the manifest is for another namespace than -n says.
        Conflict: a run of that name is there, and the manifest is another run.
    """
    manifest = check(file, None)
    run = _placed(manifest, source)
    source = source.in_namespace(run.metadata.namespace)
    body = _body(manifest.raw, run.metadata.namespace)
    if dry_run is DryRun.CLIENT:
        return Submitted(run, "created")
    known = _known(source, run)
    if known is None:
        try:
            return Submitted(
                source.connection.create_run(run.metadata.namespace, body, dry_run=dry_run is DryRun.SERVER), "created"
            )
        except Conflict:
            known = _known(source, run)  # Somebody was quicker.
            if known is None:
                raise
    return _change(source, known, run, dry_run)


def _change(source: ClusterSource, known: RLHFRun, run: RLHFRun, dry_run: DryRun) -> Submitted:
    name = run.metadata.name
    wanted = with_said_later(run.spec, known.spec, ended=False)
    spec = merge_patch(known.spec.to_wire(), wanted.to_wire())
    metadata = _new_metadata(known, run)
    if known.metadata.deletion_timestamp is not None:
        raise Conflict(
            f"run {name!r} is being deleted",
            why="a new run may have its name when it is gone",
            hints=(command_for(source, "delete", name, "--wait", "--yes") + "   waits for that",),
        )
    if spec and phase_of(known).finished:
        raise Conflict(
            f"run {name!r} has ended ({phase_of(known).value}), and the manifest changes {_paths(spec)}",
            why="a run that has ended does not start again",
            hints=(
                "give the manifest another metadata.name",
                command_for(source, "delete", name) + "   then submit it again",
                FOUND_AGAIN,
            ),
        )
    if fields := immutable_changes(known.spec, wanted):
        raise Conflict.of_fields(name, fields)
    patch: dict[str, Any] = {key: value for key, value in {"spec": spec, "metadata": metadata}.items() if value}
    if not patch:
        return Submitted(known, "unchanged")
    return Submitted(source.connection.patch_run(known, patch, dry_run=dry_run is DryRun.SERVER), "configured")


def _placed(manifest: Checked, source: ClusterSource) -> RLHFRun:
    """The run in its namespace: the manifest's own, else what the options and the context say."""
    run = manifest.run
    said = run.metadata.namespace if "namespace" in run.metadata.model_fields_set else None
    if said is not None and source.asked_namespace not in (None, said):
        raise UsageProblem(
            f"the manifest is for namespace {said!r}, and -n says {source.asked_namespace!r}",
            hints=(f"leave -n out, or give -n {said}",),
        )
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"namespace": said or source.namespace})})


def _body(raw: dict[str, Any], namespace: str) -> dict[str, Any]:
    metadata = {key: raw["metadata"][key] for key in _OWN_METADATA if key in raw["metadata"]}
    return {**{key: value for key, value in raw.items() if key != "status"}, "metadata": {**metadata, "namespace": namespace}}


def _known(source: ClusterSource, run: RLHFRun) -> RLHFRun | None:
    try:
        return source.connection.run(run.metadata.namespace, run.metadata.name)
    except NotFound:
        return None


def _new_metadata(known: RLHFRun, run: RLHFRun) -> dict[str, Any]:
    """Labels and annotations that the manifest has and the run has not."""
    found: dict[str, Any] = {}
    for kind in ("labels", "annotations"):
        there, wanted = getattr(known.metadata, kind) or {}, getattr(run.metadata, kind) or {}
        if new := {key: value for key, value in wanted.items() if there.get(key) != value}:
            found[kind] = new
    return found


def _paths(patch: dict[str, Any], before: str = "spec") -> str:
    found = []
    for key, value in patch.items():
        found.append(_paths(value, f"{before}.{key}") if isinstance(value, dict) and value else f"{before}.{key}")
    return ", ".join(found)
