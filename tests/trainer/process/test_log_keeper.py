"""What a stage's pod says is shown at once and in the store soon, and to keep it changes nothing for the stage."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhf_api.resource.storage import Storage
from rlhf_api.words import StageExit, StageName
from rlhf_store import kept_logs, open_store
from rlhf_trainer.process.log_keeper import HEAD_BYTES, TAIL_BYTES, BoundedLog, interval
from support.s3 import BUCKET, S3Server
from support.stages import RUN, RealRun, children, config_of, start_stage
from support.waiting import wait_until

pytestmark = pytest.mark.processes

_STAGE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from rlhf_api.conventions.log_names import LogName
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import RunRef
from rlhf_trainer.process import log_keeper

folder = Path(sys.argv[1])
log_keeper._RETRY_SECONDS, log_keeper.END_SECONDS = 0.2, float(sys.argv[3])
log_keeper.keep_log(Storage.model_validate_json(sys.argv[2]), RunRef(namespace="default", name="quickstart", uid="u1"),
                    LogName.parse("train-1-1"), every=float(sys.argv[4]))
"""
#: Goes on until it is ended from outside.
_FOR_EVER = "(folder / 'ready').touch()\nwhile True: time.sleep(0.01)"


@dataclass
class Pods:
    """Pods of one attempt whose stage is a few lines of Python."""

    folder: Path
    storage: Storage

    def start(
        self, stage: str, *, stdout: int | Path = subprocess.PIPE, end_seconds: float = 60, every: float = 600, before: str = ""
    ) -> subprocess.Popen[bytes]:
        target = stdout.open("wb") if isinstance(stdout, Path) else stdout
        storage = self.storage.model_dump_json(by_alias=True)
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"{before}\n{_STAGE}{textwrap.dedent(stage)}",
                str(self.folder),
                storage,
                str(end_seconds),
                str(every),
            ],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=target,
            stderr=subprocess.PIPE,
        )

    def run(self, stage: str, *, before: str = "") -> tuple[int, bytes, bytes]:
        """Exit code, stdout, stderr. `before`: what is done before there is a keeper."""
        process = self.start(stage, before=before)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    @property
    def logs(self) -> list[bytes]:
        """In the order of the pods."""
        store = open_store(self.storage)
        return [store.get(log.key) for log in sorted(kept_logs(store, RUN), key=lambda log: log.number)]

    def await_ready(self) -> None:
        wait_until((self.folder / "ready").exists, "the stage")


@pytest.fixture
def pods(tmp_path: Path, storage: Storage) -> Pods:
    return Pods(tmp_path, storage)


@pytest.mark.parametrize("code", [0, 75])
def test_what_a_stage_and_its_children_say_is_shown_and_kept_and_the_exit_is_the_stage_s(pods: Pods, code: int) -> None:
    ended = pods.run(f"""
        print("the stage")
        print("its stderr", file=sys.stderr)
        subprocess.run([sys.executable, "-c", "import os; os.write(1, b'a child'); os.write(2, b', its stderr\\\\n')"], check=True)
        if os.fork() == 0:
            os.write(1, b"a fork\\n")
            os._exit(0)
        os.wait()
        os._exit({code})
    """)
    said = b"the stage\nits stderr\na child, its stderr\na fork\n"
    assert ended == (code, said, b"")
    assert pods.logs == [said]


def test_a_line_is_shown_before_the_stage_says_more(pods: Pods) -> None:
    process = pods.start(f"print('loading')\n{_FOR_EVER}")
    assert process.stdout is not None
    assert process.stdout.readline() == b"loading\n"
    process.kill()
    process.communicate()


def test_of_a_long_log_all_is_shown_and_its_beginning_and_end_are_kept(pods: Pods) -> None:
    lines = 120_000
    code, out, _ = pods.run(f"for number in range({lines // 100}): os.write(1, (b'%099d\\n' % number) * 100)\nos._exit(0)")
    (kept,) = pods.logs
    head, between, tail = kept[:HEAD_BYTES], kept[HEAD_BYTES:-TAIL_BYTES], kept[-TAIL_BYTES:]
    assert (code, len(out)) == (0, lines * 100)
    assert (head, tail) == (out[:HEAD_BYTES], out[-TAIL_BYTES:])
    assert between == b"\n... %d bytes of this log were not kept ...\n" % (lines * 100 - HEAD_BYTES - TAIL_BYTES)


@pytest.mark.parametrize("size", [0, 1, HEAD_BYTES, HEAD_BYTES + TAIL_BYTES])
def test_a_log_within_the_bounds_is_kept_as_it_is(size: int) -> None:
    log, data = BoundedLog(), os.urandom(size)
    for start in range(0, size, 1 << 18):
        log.add(data[start : start + (1 << 18)])
    assert log.content() == (data, size)


def test_a_pod_has_its_log_s_name_before_it_has_said_anything(pods: Pods) -> None:
    """So that a pod's log is told from that of the one that it replaced as soon as both are there."""
    process = pods.start(_FOR_EVER)
    wait_until(lambda: pods.logs, "an object")
    assert pods.logs == [b""]
    process.kill()
    process.communicate()


def test_a_stage_that_is_told_to_stop_ends_though_nobody_reads_its_log(pods: Pods) -> None:
    """It writes, and would wait for ever; what it says is in the store."""
    process = pods.start(f"""
def stop(*_):
    os.write(1, b"x" * 300_000)
    os.write(1, b"a checkpoint is written")
    os._exit(143)
signal.signal(signal.SIGTERM, stop)
os.write(1, b"y" * 50_000)
{_FOR_EVER}
""")
    pods.await_ready()
    process.terminate()
    wait_until(lambda: pods.logs and pods.logs[-1].endswith(b"a checkpoint is written"), "its last words", seconds=60)
    process.communicate(timeout=120)
    assert process.returncode == 143


def test_a_keeper_ends_though_stderr_is_full_and_the_store_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        storage = Storage.model_validate({"url": "s3://bucket/x", "endpointURL": endpoint, "addressingStyle": "Path"})
        fill = "import os\nos.set_blocking(2, False)\ntry:\n while True: os.write(2, bytes(4096))\nexcept BlockingIOError: pass\n"
        process = Pods(tmp_path, storage).start("os._exit(0)", end_seconds=0.5, before=f"{fill}os.set_blocking(2, True)")
        try:
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.communicate()


def test_a_keeper_knows_how_its_stage_ended_whatever_its_parent_does_with_children(pods: Pods) -> None:
    code, _, _ = pods.run("os._exit(75)", before="import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    assert code == 75


def test_the_longer_a_log_is_the_longer_it_waits_but_never_for_more_than_ten_minutes() -> None:
    sizes = (0, 400_000, 800_000, HEAD_BYTES + TAIL_BYTES, 10**12)
    assert [interval(30.0, size) for size in sizes] == [30.0, 30.0, 60.0, 600.0, 600.0]


def test_sigterm_reaches_the_stage_and_its_last_words_are_kept(pods: Pods) -> None:
    process = pods.start(f"""
def stop(*_):
    print("a checkpoint is written")
    os._exit(143)
signal.signal(signal.SIGTERM, stop)
{_FOR_EVER}
""")
    pods.await_ready()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    assert (process.returncode, out, pods.logs) == (143, b"a checkpoint is written\n", [b"a checkpoint is written\n"])


def test_a_pod_that_is_told_to_go_puts_what_there_is_at_once(pods: Pods) -> None:
    """Its stage may need all the time that it has."""
    process = pods.start(f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('step 1')\n{_FOR_EVER}")
    pods.await_ready()
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: pods.logs == [b"step 1\n"], "the log in the store")
    process.kill()
    process.communicate()


def test_a_pod_that_is_killed_loses_at_most_what_came_since_the_last_put_and_leaves_no_stage(pods: Pods) -> None:
    process = pods.start(f"print('step 1', os.getpid())\n{_FOR_EVER}", every=0.05)
    assert process.stdout is not None
    said = process.stdout.readline()
    wait_until(lambda: pods.logs == [said], "the log in the store")
    process.kill()
    process.communicate()
    wait_until(lambda: not Path(f"/proc/{int(said.split()[2])}").exists(), "the stage's end")
    assert pods.logs == [said]


def test_what_a_stage_says_as_it_crashes_is_shown_and_kept(pods: Pods) -> None:
    code, out, _ = pods.run("import faulthandler\nfaulthandler.enable()\nfaulthandler._sigsegv()")
    assert code == 128 + signal.SIGSEGV
    assert b"Fatal Python error: Segmentation fault" in out
    assert pods.logs == [out]


def test_native_code_that_holds_pythons_lock_may_say_as_much_as_it_likes(pods: Pods) -> None:
    code, out, _ = pods.run("import ctypes\nctypes.PyDLL(None).write(1, bytes(1 << 20), 1 << 20)\nos._exit(0)")
    assert (code, len(out), [len(log) for log in pods.logs]) == (0, 1 << 20, [1 << 20])


def test_a_second_pod_of_the_same_name_has_a_log_of_its_own(pods: Pods) -> None:
    for number in (1, 2):
        pods.run(f"print('pod {number}')")
    assert pods.logs == [b"pod 1\n", b"pod 2\n"]


def test_a_child_that_the_stage_leaves_behind_holds_nobody(pods: Pods) -> None:
    code, out, _ = pods.run("""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=1, start_new_session=True)
        print(child.pid)
        os._exit(0)
    """)
    os.kill(int(out), signal.SIGKILL)
    assert (code, pods.logs) == (0, [out])


def test_a_stage_has_only_the_writing_end_of_the_pipe(pods: Pods) -> None:
    _, out, _ = pods.run("""
        for number in os.listdir("/proc/self/fd"):
            if os.path.exists(f"/proc/self/fd/{number}") and os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
                print(number)
    """)
    assert sorted(out.split()) == [b"1", b"2"]


@pytest.mark.parametrize("gone", [True, False], ids=["nobody reads it", "its disk is full"])
def test_a_stdout_that_fails_stops_nothing(pods: Pods, gone: bool) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = pods.start("print('step 1')\nprint('step 2')", stdout=writer if gone else Path("/dev/full"))
    os.close(writer)
    process.communicate()
    assert (process.returncode, pods.logs) == (0, [b"step 1\nstep 2\n"])


def test_a_stdout_that_nobody_reads_does_not_hold_a_pod_whose_stage_has_ended(pods: Pods) -> None:
    reader, writer = os.pipe()
    process = pods.start("os.write(1, bytes(100_000))\nos._exit(3)", stdout=writer, end_seconds=1)
    os.close(writer)
    process.communicate()
    os.close(reader)
    assert (process.returncode, [len(log) for log in pods.logs]) == (3, [100_000])


@pytest.mark.parametrize("missing", ["os.pidfd_open", "os.fork", "threading.Thread.start"])
def test_a_pod_that_cannot_have_a_keeper_has_its_stage_all_the_same(pods: Pods, missing: str) -> None:
    error = "RuntimeError('no more')" if "Thread" in missing else "OSError(11, 'no more')"
    code, out, err = pods.run(
        "print('step 1')\nos._exit(75)", before=f"import os, threading\ndef refuse(*_): raise {error}\n{missing} = refuse"
    )
    assert (code, out) == (75, b"step 1\n")
    assert err.startswith(b"log keeper: this log is not kept in the store")
    assert b"no more" in err


def _file_in_the_way(pods: Pods) -> None:
    Path(pods.storage.url.removeprefix("file://")).write_text("")


def _port_without_server(pods: Pods) -> None:
    pods.storage = Storage.model_validate({"url": "s3://bucket/x", "endpointURL": "http://127.0.0.1:9", "region": "us-east-1"})


@pytest.mark.parametrize(
    ("take_away", "why"),
    [(_file_in_the_way, "a file is in the way"), pytest.param(_port_without_server, "is away", marks=pytest.mark.s3)],
)
def test_a_store_that_is_away_is_told_once_and_changes_no_exit(
    pods: Pods, monkeypatch: pytest.MonkeyPatch, take_away: Callable[[Pods], None], why: str
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden"}.items():
        monkeypatch.setenv(name, value)
    take_away(pods)
    process = pods.start(f"print('step 1')\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(143))\n{_FOR_EVER}", every=0.01)
    assert process.stderr is not None
    told = process.stderr.readline().decode()
    assert told.startswith("log keeper: this log is not kept in the store, or not all of it, and the stage goes on: ")
    assert why in told
    assert f"{pods.storage.url}/runs/default/quickstart/u1/logs/train-1-1.log" in told
    assert "hidden" not in told
    pods.await_ready()
    process.send_signal(signal.SIGTERM)
    assert process.communicate() == (b"step 1\n", b"")
    assert process.returncode == 143


@pytest.mark.s3
def test_a_store_that_answers_nothing_does_not_hold_the_end(s3_server: S3Server, tmp_path: Path) -> None:
    server = S3Server(tmp_path / "s3").start()
    try:
        server.create_bucket(BUCKET)
        pods = Pods(tmp_path, server.storage())
        server.pause()
        process = pods.start("print('step 1')\nos._exit(75)", end_seconds=1)
        _, err = process.communicate()
        assert process.returncode == 75
        assert b"the store did not take it within 1 s of the stage's end" in err
    finally:
        server.stop()


@pytest.mark.s3
def test_a_store_that_comes_back_gets_all_of_the_log_in_one_object(s3_server: S3Server, tmp_path: Path) -> None:
    server = S3Server(tmp_path / "s3").start()
    try:
        server.create_bucket(BUCKET)
        pods = Pods(tmp_path, server.storage())
        server.stop()
        process = pods.start(f"print('step 1')\n{_FOR_EVER}", every=0.05)
        assert process.stderr is not None
        assert b"is away" in process.stderr.readline()
        server.start()
        wait_until(lambda: pods.logs == [b"step 1\n"], "the log in the store")
        process.kill()
        process.communicate()
    finally:
        server.stop()


@pytest.mark.engine
def test_sigterm_reaches_the_ranks_of_a_training_and_what_they_say_is_kept(
    real_run: RealRun, storage: Storage, tmp_path: Path
) -> None:
    config = config_of(real_run.config(StageName.SFT, None).work, storage, iteration=None)
    keeper = start_stage(config, tmp_path, RLHF_KEEP_LOG="sft-0-1")

    def torchrun() -> bool:
        agents = [agent for stage in children(keeper.pid) for agent in children(stage)]
        return any(b"rlhf_trainer.training.agent" in Path(f"/proc/{agent}/cmdline").read_bytes() for agent in agents)

    wait_until(torchrun, "torchrun", seconds=300)
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait() == StageExit.PREEMPTED
    store, shown = open_store(storage), (tmp_path / "log-0").read_bytes()
    assert [store.get(log.key) for log in kept_logs(store, RUN)] == [shown]
    assert b"asking the ranks to checkpoint" in shown
