"""The lock of a run: one drives it, anybody may look."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rlhf_operator.local import RunLocked
from rlhf_operator.local.folder.lock import Holder, holder, locked
from support.waiting import wait_until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: Above every pid_max.
NOBODY = 2**22 + 1


@contextmanager
def held(path: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_who_looks_while_another_looks_sees_no_holder(path: Path) -> None:
    with held(path, fcntl.LOCK_SH):
        assert holder(path) is None


def test_a_run_that_starts_while_somebody_looks_is_not_refused(path: Path) -> None:
    looking, over = threading.Event(), threading.Event()

    def look() -> None:
        with held(path, fcntl.LOCK_SH):
            looking.set()
            over.wait(0.1)

    thread = threading.Thread(target=look)
    thread.start()
    looking.wait()
    with locked(path, "tiny", NOW):
        over.set()
    thread.join()


def test_any_number_of_looks_hinder_no_start(path: Path) -> None:
    path.touch()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            holder(path)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            with locked(path, "tiny", NOW):
                pass
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("pid", [NOBODY, os.getpid()], ids=["nobody", "own"])
def test_the_name_that_a_killed_holder_left_is_not_taken_for_the_present_one(path: Path, pid: int) -> None:
    path.write_text(json.dumps({"pid": pid, "host": socket.gethostname(), "since": NOW.isoformat()}))
    with held(path, fcntl.LOCK_EX):
        found = holder(path)
        assert found is not None
        assert found.pid == 0
        with pytest.raises(RunLocked, match="another process, since a moment ago") as refused, locked(path, "tiny", NOW):
            pass
        assert refused.value.pid == 0


def test_the_holder_is_named(path: Path) -> None:
    record = {"pid": os.getppid(), "host": socket.gethostname(), "since": NOW.isoformat()}
    with held(path, fcntl.LOCK_EX):
        path.write_text(json.dumps(record))
        found = holder(path)
        assert found is not None
        assert (found.pid, found.since) == (os.getppid(), NOW)
        with pytest.raises(RunLocked, match=f"process {os.getppid()} on"), locked(path, "tiny", NOW):
            pass


def test_a_holder_that_is_done_leaves_no_name(path: Path) -> None:
    with locked(path, "tiny", NOW):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert path.read_text() == ""
    assert holder(path) is None


def test_a_run_that_was_never_driven_has_no_holder(path: Path) -> None:
    assert holder(path) is None


def test_who_waited_for_the_lock_of_a_run_that_was_deleted_gets_that_of_the_next_one(path: Path) -> None:
    """A second process would find the new file free, and two would drive one run."""
    found: list[Holder | None] = []

    def drive() -> None:
        with locked(path, "tiny", NOW):
            found.append(holder(path))

    with held(path, fcntl.LOCK_EX):
        thread = threading.Thread(target=drive)
        thread.start()
        wait_until(lambda: _descriptors_of(path) == 2, "its look at the file")
        path.unlink()
    thread.join()
    assert found != [None]
    assert len(found) == 1


def test_the_folder_of_a_run_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    with locked(tmp_path / "gone" / "lock", "tiny", NOW):
        assert holder(tmp_path / "gone" / "lock") is not None


def _descriptors_of(path: Path) -> int:
    """Of this process."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            targets.append(link.readlink())
    return targets.count(path)
