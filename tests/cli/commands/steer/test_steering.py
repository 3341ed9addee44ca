"""approve, suspend, resume, cancel: changes to a local run's spec."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from rlhf_operator.local.folder.lock import locked
from rlhfctl.exits import Exit
from support import example_runs
from support.rlhfctl import process, rlhfctl

STORE = "file:///state/store"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    for name, make in {"waiting": example_runs.paused, "working": example_runs.at_work, "done": example_runs.finished}.items():
        example_runs.save(tmp_path, make(name, STORE))
    return tmp_path


def _spec(state: Path, name: str) -> dict[str, object]:
    spec = yaml.safe_load((state / "runs" / name / "run.yaml").read_text())["spec"]
    assert isinstance(spec, dict)
    return spec


def test_approve_records_the_gate_that_waits(state: Path) -> None:
    done = rlhfctl("approve", "waiting", "--state", str(state))
    assert (done.code, done.out) == (0, "")
    assert "gate 'length' of iteration 1 is approved" in " ".join(done.err.split())
    assert _spec(state, "waiting")["approvals"] == [{"gate": "length", "iteration": 1}]
    again = rlhfctl("approve", "waiting", "--state", str(state))
    assert again.code == Exit.NOT_FOUND
    assert "no gate of run 'waiting' waits" in again.err


def test_approve_says_how_the_run_goes_on(state: Path) -> None:
    done = rlhfctl("approve", "waiting", "length", "--iteration", "1", "--state", str(state))
    assert "no process drives the run now: rlhfctl run --state" in " ".join(done.err.split())


def test_delete_removes_a_run_with_its_logs_and_says_what_stays(state: Path) -> None:
    refused = rlhfctl("delete", "working", "--state", str(state))
    assert refused.code == Exit.USAGE
    assert f"rlhfctl delete working --state {state} --yes" in " ".join(refused.err.split())
    assert (state / "runs" / "working" / "run.yaml").exists()
    done = rlhfctl("delete", "working", "--state", str(state), "--yes", "--wait")
    assert (done.code, done.out) == (0, "")
    said = " ".join(done.err.split())
    assert f"run 'working' is deleted: its logs and its report go with it; its artifacts stay in {STORE}" in said
    assert sorted(path.name for path in (state / "runs").iterdir()) == ["done", "waiting"]
    assert rlhfctl("delete", "working", "--state", str(state), "--yes").code == Exit.NOT_FOUND


def test_what_a_delete_that_was_killed_has_left_is_no_run_and_goes_with_the_next(state: Path) -> None:
    (state / "runs" / "waiting").rename(state / f"deleted-{uuid.uuid4().hex}")
    (state / "deleted-samples").mkdir()
    assert rlhfctl("list", "--state", str(state), "-o", "name").out.split() == ["rlhfrun.rlhf.dev/done", "rlhfrun.rlhf.dev/working"]
    assert rlhfctl("delete", "working", "--state", str(state), "--yes").code == 0
    assert sorted(path.name for path in state.iterdir()) == ["deleted-samples", "runs"], "the first is not ours"


def test_a_run_that_a_process_drives_is_not_deleted(state: Path) -> None:
    with locked(state / "runs" / "working" / "lock", "working", datetime.now(UTC)):
        done = process("delete", "working", "--state", str(state), "--yes")
    assert done.code == Exit.CONFLICT
    assert f"is driven by process {os.getpid()}" in " ".join(done.err.split())
    assert (state / "runs" / "working" / "status.json").exists()


def test_a_misspelt_gate_is_not_found_and_the_nearest_is_named(state: Path) -> None:
    done = rlhfctl("approve", "waiting", "lenght", "--state", str(state))
    assert done.code == Exit.NOT_FOUND
    assert "did you mean 'length'?" in done.err


@pytest.mark.parametrize(("command", "field", "value"), [("suspend", "suspend", True), ("cancel", "cancel", True)])
def test_suspend_and_cancel_write_the_spec(state: Path, command: str, field: str, value: bool) -> None:
    assert rlhfctl(command, "working", "--state", str(state)).code == 0
    assert _spec(state, "working")[field] is value


def test_resume_takes_suspend_back(state: Path) -> None:
    rlhfctl("suspend", "working", "--state", str(state))
    assert rlhfctl("resume", "working", "--state", str(state)).code == 0
    assert _spec(state, "working")["suspend"] is False


@pytest.mark.parametrize("command", ["suspend", "resume", "cancel"])
def test_a_run_that_has_ended_cannot_be_changed(state: Path, command: str) -> None:
    done = rlhfctl(command, "done", "--state", str(state))
    assert done.code == Exit.CONFLICT
    assert "has ended (Succeeded)" in done.err
