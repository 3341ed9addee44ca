"""The lock under which an extension is compiled outlives nobody who held it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch.utils.cpp_extension

from rlhf_trainer.training.rank.baton import KernelBaton, use_kernel_baton


def hold(path: str, held: Connection) -> None:
    assert KernelBaton(path).try_acquire()
    held.send(True)
    signal.pause()


@pytest.fixture
def holder(tmp_path: Path) -> multiprocessing.Process:
    """A process that holds it; it is killed by its test."""
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=hold, args=(str(tmp_path / "lock"), theirs), daemon=True)
    process.start()
    assert mine.recv()
    return process


def test_a_killed_holder_leaves_nothing_to_wait_for(tmp_path: Path, holder: multiprocessing.Process) -> None:
    baton = KernelBaton(str(tmp_path / "lock"))
    assert not baton.try_acquire()
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    baton.wait()
    assert baton.try_acquire()
    baton.release()
    assert baton.try_acquire()


def test_torchs_own_file_that_a_killed_process_left_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    assert KernelBaton(str(tmp_path / "lock")).try_acquire()


def test_torch_compiles_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name by which its compiling looks the lock up."""
    compiling = torch.utils.cpp_extension
    monkeypatch.setattr(compiling, "FileBaton", getattr(compiling, "FileBaton"))  # noqa: B009 - not exported, says torch
    assert "FileBaton" in compiling._jit_compile.__code__.co_names
    use_kernel_baton()
    assert vars(compiling)["FileBaton"] is KernelBaton
