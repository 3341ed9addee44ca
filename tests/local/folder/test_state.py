"""The manifest of a run in the state folder, while several commands write it."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.run import RLHFRun, RLHFRunSpec
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase
from rlhf_operator.local import LocalState, StateUnusable
from rlhf_operator.local.folder.lock import exclusive
from support.local_runs import Background, LocalWorld
from support.runs import spec_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> LocalWorld:
    return LocalWorld(tmp_path)


def as_written(world: LocalWorld, **changes: Any) -> RLHFRun:
    """A manifest in which what is not said is absent."""
    spec = spec_of(**{"iterations": 1, "storage": {"url": world.state.store_url}, **changes})
    return world.manifest().model_copy(update={"spec": spec})


def suspended(spec: RLHFRunSpec) -> RLHFRunSpec:
    return spec.model_copy(update={"suspend": True})


def test_a_manifest_is_not_taken_while_somebody_edits(world: LocalWorld) -> None:
    world.state.accept(world.manifest(), NOW)
    with exclusive(world.state.run_folder("tiny") / "edit-lock"):
        taking = Background(lambda: world.state.accept(world.manifest(iterations=2), NOW))
        assert not taking.ended_within(0.2)
    assert taking.result().spec.iterations == 2


@pytest.mark.parametrize("changes", [{}, {"iterations": 2}])
def test_what_was_edited_stays_where_the_manifest_does_not_say_it(world: LocalWorld, changes: dict[str, Any]) -> None:
    world.state.accept(as_written(world), NOW)
    world.state.edit("tiny", suspended)
    assert world.state.accept(as_written(world, **changes), NOW).spec.suspend
    assert world.state.load("tiny").spec.suspend
    assert not world.state.accept(as_written(world, suspend=False, **changes), NOW).spec.suspend


def test_a_run_that_begins_anew_keeps_its_approvals_only(world: LocalWorld) -> None:
    gates = [{"name": "look", "metric": "winRateVsInitial", "max": 0.55, "action": "Pause"}]
    approvals = [{"gate": "look", "iteration": 1}]
    first: RLHFRun = world.state.accept(as_written(world, gates=gates, approvals=approvals, cancel=True), NOW)
    world.state.save_status("tiny", RLHFRunStatus(phase=Phase.CANCELLED))
    again = world.state.accept(as_written(world, gates=gates), NOW)
    assert again.metadata.uid != first.metadata.uid
    assert not again.spec.cancel
    assert [(approval.gate, approval.iteration) for approval in again.spec.approvals] == [("look", 1)]


def test_annotations_are_those_of_the_manifest_that_was_taken_last(world: LocalWorld) -> None:
    """`rlhfctl` notes the file and its options there, for its hints."""
    first = as_written(world)
    world.state.accept(first, NOW)
    metadata = first.metadata.model_copy(update={"annotations": {"rlhf.dev/local-cpu": "true"}})
    world.state.accept(first.model_copy(update={"metadata": metadata}), NOW)
    stored = world.state.load("tiny").metadata
    assert (stored.annotations, stored.generation) == ({"rlhf.dev/local-cpu": "true"}, 1)
    world.state.accept(first, NOW)
    assert world.state.load("tiny").metadata.annotations is None


def test_an_edit_that_waited_while_the_run_was_deleted_waits_for_who_edits_the_next(world: LocalWorld) -> None:
    world.state.accept(world.manifest(), NOW)
    lock = world.state.run_folder("tiny") / "edit-lock"
    with ExitStack() as former:
        former.enter_context(exclusive(lock))
        editing = Background(lambda: world.state.edit("tiny", suspended))
        assert not editing.ended_within(0.2)
        lock.parent.rename(world.state.folder / "deleted-1")
        accepted = world.state.accept(world.manifest(), NOW)
        with exclusive(lock):
            former.close()
            assert not editing.ended_within(0.2)
    assert editing.result().metadata.uid == accepted.metadata.uid


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"- a\n", b"text", b"[" * 5000])
def test_a_run_yaml_that_is_no_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    state = LocalState(tmp_path)
    state.run_folder("tiny").mkdir(parents=True)
    (state.run_folder("tiny") / "run.yaml").write_bytes(content)
    with pytest.raises(StateUnusable, match=r"run\.yaml.*put the manifest back"):
        state.load("tiny")
