"""Stages forked from a fork server, and what happens without one. The server here is real; what it preloads is not needed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlhf_operator.local.processes.launcher import MARKER, GuardedLauncher
from rlhf_operator.local.processes.warm import WarmLauncher
from support.local_runs import alive
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
    (package / "process").mkdir(parents=True)
    for folder in (package, package / "process"):
        (folder / "__init__.py").write_text("")
    (package / "process" / "forkserver.py").write_text(textwrap.dedent(server))
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


#: Every stage ends with 7, at once.
ALWAYS_SEVEN = """
    import json, os, socket, sys
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    while True:
        connection, _ = listener.accept()
        connection.makefile("r").readline()
        for answer in ({"pid": os.getpid()}, {"exit": 7}):
            connection.sendall(json.dumps(answer).encode() + b"\\n")
"""


def test_a_stage_with_surroundings_of_its_own_is_a_plain_process(launcher: WarmLauncher, tmp_path: Path) -> None:
    first = environment(tmp_path, ALWAYS_SEVEN, "raise SystemExit(64)")
    second = first | {MARKER: str(uuid.uuid4()), "JOB_COMPLETION_INDEX": "1", "OMP_NUM_THREADS": "2"}
    other = first | {"VLLM_CPU_KVCACHE_SPACE": "2"}
    codes = [launcher.launch(STAGE, given, tmp_path / "log").wait() for given in (first, second, other, first)]
    assert codes == [7, 7, 64, 7]


def with_the_real_server(tmp_path: Path, stage: str) -> dict[str, str]:
    """The trainer's own fork server, without its imports; only the stage and torch are what the case says."""
    [real] = find_spec("rlhf_trainer").submodule_search_locations  # type: ignore[union-attr, misc]
    server = f"""
        from pathlib import Path
        source = Path({real!r}, "process", "forkserver.py").read_text()
        exec(source.replace('if __name__ == "__main__":', 'PRELOAD = ()\\nif __name__ == "__main__":'))
    """
    given = environment(tmp_path, server, stage)
    package = Path(given["PYTHONPATH"]) / "rlhf_trainer"
    for folder, source in ((package, real), (package / "process", f"{real}/process")):
        (folder / "__init__.py").write_text(f"__path__.append({source!r})")
    (package / "__main__.py").rename(package / "process" / "stage_process.py")
    (package.parent / "torch.py").write_text("def set_num_threads(count): ...")
    return given


def test_a_stage_that_cannot_be_forked_says_why_in_its_own_log(launcher: WarmLauncher, tmp_path: Path) -> None:
    given = with_the_real_server(tmp_path, "def main(argv): return 0")
    assert launcher.launch(STAGE, given, tmp_path / "good").wait() == 0
    assert launcher.launch(STAGE, given | {"OMP_NUM_THREADS": "many"}, tmp_path / "log").wait() == 1
    assert "ValueError" in (tmp_path / "log").read_text()
    assert launcher.launch(STAGE, given, tmp_path / "good").wait() == 0


SUPERVISOR = """
    import json, sys
    from pathlib import Path
    from rlhf_operator.local.processes.launcher import GuardedLauncher
    from rlhf_operator.local.processes.warm import WarmLauncher
    folder = Path(sys.argv[1])
    launcher = WarmLauncher(GuardedLauncher(), folder / "forkserver.log")
    stage = [sys.executable, "-m", "rlhf_trainer", "sample"]
    launcher.launch(stage, json.loads(sys.argv[2]), folder / "log").wait()
"""

STAGE_WITH_CHILD = """
    def main(argv):
        import os, subprocess, sys, time
        from pathlib import Path
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        beside = Path(os.environ["PIDS"] + ".new")
        beside.write_text(f"{os.getpid()} {child.pid}")
        beside.rename(os.environ["PIDS"])
        time.sleep(600)
"""


def test_nothing_that_a_forked_stage_started_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    given = with_the_real_server(tmp_path, STAGE_WITH_CHILD) | {"PIDS": str(pids)}
    supervisor = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SUPERVISOR), str(tmp_path), json.dumps(given)])
    wait_until(pids.exists, "the stage and its child", seconds=60)
    supervisor.kill()
    supervisor.wait()
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not alive(int(pid)), f"process {pid} to die")  # type: ignore[misc]


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
