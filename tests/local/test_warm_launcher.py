"""Stages forked from a fork server, and what happens without one. The server here is real; what it preloads is not needed."""

from __future__ import annotations

import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_operator.local.launcher import MARKER, GuardedLauncher
from rlhf_operator.local.warm import WarmLauncher
from support.waiting import wait_until

STAGE = [sys.executable, "-m", "rlhf_trainer", "sample"]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[WarmLauncher]:
    plain = GuardedLauncher()
    warm = WarmLauncher(plain, tmp_path / "forkserver.log")
    yield warm
    warm.close()
    plain.close()


def environment(tmp_path: Path, server: str, stage: str) -> dict[str, str]:
    """A package of our name before the real one, whose fork server and stages are what the case says."""
    package = tmp_path / "fake" / "rlhf_trainer"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "forkserver.py").write_text(textwrap.dedent(server))
    (package / "__main__.py").write_text(textwrap.dedent(stage))
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(package.parent), MARKER: str(uuid.uuid4())}


def test_without_a_fork_server_a_stage_is_a_plain_process(launcher: WarmLauncher, tmp_path: Path) -> None:
    surroundings = environment(tmp_path, "raise SystemExit(3)", "raise SystemExit(64)")
    process = launcher.launch(STAGE, surroundings, tmp_path / "log")
    assert process.wait() == 64
    assert launcher.launch(STAGE, surroundings, tmp_path / "log").wait() == 64


SERVER = """
    import json, os, socket, sys
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    connection, _ = listener.accept()
    connection.makefile("r").readline()
    pid = os.fork()
    if pid == 0:
        import time
        time.sleep(600)
    connection.sendall(json.dumps({"pid": pid}).encode() + b"\\n")
    if os.environ.get("DIE"):
        os.kill(pid, 9)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    connection.sendall(json.dumps({"exit": os.waitstatus_to_exitcode(status)}).encode() + b"\\n")
"""


def test_a_stage_that_was_told_to_stop_before_it_started_is_stopped(launcher: WarmLauncher, tmp_path: Path) -> None:
    process = launcher.launch(STAGE, environment(tmp_path, SERVER, ""), tmp_path / "log")
    process.terminate()
    assert process.wait() == 143


def test_a_lost_fork_server_counts_as_a_killed_stage(launcher: WarmLauncher, tmp_path: Path) -> None:
    process = launcher.launch(STAGE, environment(tmp_path, SERVER, "") | {"DIE": "1"}, tmp_path / "log")
    assert process.wait() == 137


def test_other_commands_do_not_start_the_server(launcher: WarmLauncher, tmp_path: Path) -> None:
    surroundings = environment(tmp_path, "raise SystemExit(3)", "")
    assert launcher.launch([sys.executable, "-c", "raise SystemExit(5)"], surroundings, tmp_path / "log").wait() == 5
    assert not (tmp_path / "forkserver.log").exists()


def test_closing_leaves_no_process_and_no_socket(tmp_path: Path) -> None:
    plain = GuardedLauncher()
    warm = WarmLauncher(plain, tmp_path / "forkserver.log")
    process = warm.launch(STAGE, environment(tmp_path, SERVER, ""), tmp_path / "log")
    folder = warm._folder
    process.terminate()
    process.wait()
    warm.close()
    plain.close()
    wait_until(lambda: not folder.exists(), "the socket's folder is gone")
