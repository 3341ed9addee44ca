"""`make programs`: what is built ahead of the tests, in which order, and what is said of it. The compiler is a script."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from image import builder
from support import ahead, binaries, bounded, build_lock, processes, published, smollm2
from support.binaries import NAMES, BuildError, Source
from support.documents import ROOT
from support.waiting import wait_until

#: Fixtures hide it.
PYTHON = sys.executable
#: It makes what it is asked for, and writes down what that was.
GO = """#!/bin/sh
echo "$1" >> {log}
case "$1" in
  env) echo {cache}; echo {cache}-mod ;;
  build) while [ "$1" != -o ]; do shift; done; mkdir -p out; echo built > "$2" ;;
  install) for package; do :; done; mkdir -p "$GOBIN"; package=${{package%@*}}; echo built > "$GOBIN/${{package##*/}}" ;;
esac
"""
FAILS = "#!/bin/sh\n[ \"$1\" = env ] || { echo 'dial tcp: no such host' >&2; exit 1; }\n"
HANGS = "#!/bin/sh\nexec sleep 600\n"
#: Each of a source of its own.
THREE = ("kwok", "versitygw", "pause")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Go was asked for, a line each. There is no other Go, and nothing is built."""
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    log = tmp_path / "log"
    be(tmp_path, GO.format(log=log, cache=tmp_path / "go-cache"))
    return log


def be(folder: Path, script: str) -> None:
    go = folder / "go"
    go.write_text(script)
    go.chmod(0o755)


def build(names: Sequence[str]) -> list[str]:
    """The lines that are said, without the seconds."""
    lines: list[str] = []
    ahead.build_all(ahead.builds(names), lines.append)
    return [re.sub(r" \d+ s;", " N s;", line) for line in lines]


def made() -> set[str]:
    return {name for source in binaries.SOURCES for name in source.commands if source.program(name).exists()}


def test_each_is_said_as_it_begins_and_as_it_ends_and_what_is_left(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tuple(Source("", "own", {name: f"./{name}"}, minutes=minutes) for name, minutes in (("pause", 3), ("probe", 0.2)))
    monkeypatch.setattr(binaries, "SOURCES", sources)
    assert build(("pause", "probe")) == [
        "to build, once: 2, about 3 min",
        "[1/2] pause: begins, about 3 min",
        "[1/2] pause: built in N s; left: 1, less than a minute",
        "[2/2] probe: begins, less than a minute",
        "[2/2] probe: built in N s; left: nothing",
    ]


def test_what_is_built_is_not_built_again_and_the_compiler_is_not_even_asked(log: Path) -> None:
    build(THREE)
    assert made() == set(THREE)
    log.unlink()
    assert build(THREE) == ["programs and image: all are built"]
    assert not log.exists()
    assert binaries.program("kwok").read_text() == "built\n"


def test_the_first_that_fails_ends_it_and_the_next_time_goes_on_from_there(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(THREE[:1])
    works = (tmp_path / "go").read_text()
    be(tmp_path, FAILS)
    assert ahead.main(["crash-points"]) == 1
    said = capsys.readouterr()
    (begun,) = said.out.splitlines()[1:]
    assert begun.startswith("[1/2] kube-apiserver, kube-controller-manager, kube-scheduler, kubectl: begins, about ")
    assert said.err.startswith("kube-apiserver, ")
    assert "could not be built. Go could not reach its module proxy; set GOPROXY to one that this machine reaches." in said.err
    assert "Traceback" not in said.err
    be(tmp_path, works)
    assert build(THREE)[0].startswith("to build, once: 2, ")


def test_without_a_compiler_it_says_so_at_once(log: Path, tmp_path: Path) -> None:
    (tmp_path / "go").unlink()
    with pytest.raises(BuildError, match=r"^kwok .* could not be built. Run: make install"):
        build(THREE)


def test_one_that_takes_too_long_is_ended_and_named(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = ahead.builds(THREE)
    be(tmp_path, HANGS)
    monkeypatch.setattr(Source, "limit_minutes", 0)
    with pytest.raises(BuildError) as raised:
        ahead.build_all(builds, print)
    assert re.match(
        r"kwok \(sigs.k8s.io/kwok@\S+\) was not built after 0 min, and the build was ended; it takes", str(raised.value)
    )
    assert "It was at `go install`. Look whether" in str(raised.value)
    assert processes.under(tmp_path / "cache") == []
    assert [path.name for path in (tmp_path / "cache" / "bin").iterdir() if path.suffix != ".lock"] == []


def test_a_step_of_the_image_that_takes_too_long_is_ended_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path))
    with pytest.raises(
        builder.ImageError, match=r"^`sleep …`, of the image, was not done after 0 min, and was ended. Look whether"
    ):
        builder._run("sleep", "600", minutes=0)


@pytest.mark.parametrize("source", binaries.SOURCES, ids=lambda source: next(iter(source.commands)))
def test_every_limit_is_far_from_what_it_takes(source: Source) -> None:
    assert source.limit_minutes >= max(10, 4 * source.minutes)


def test_what_a_killed_build_has_left_goes(log: Path, tmp_path: Path) -> None:
    left = tmp_path / "cache" / "bin" / f".build-{next(s for s in binaries.SOURCES if 'kwok' in s.commands).label}-killed" / "work"
    left.mkdir(parents=True)
    (left / "large").write_text("half a program")
    build(THREE)
    assert not left.parent.exists()


#: It writes down that it is there, and reads what nobody writes.
STAYS = "touch $0; read line < $0.never"


@pytest.mark.parametrize("command", [STAYS, f"sh -c '{STAYS}' $0 & wait", f"setsid sh -c '{STAYS}' $0 & wait"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_builds_ends_what_it_has_started_however_it_ends(tmp_path: Path, number: signal.Signals, command: str) -> None:
    """Its grandchildren too, and those in a session of their own."""
    started = tmp_path / "started"
    os.mkfifo(f"{started}.never")
    words = ["sh", "-c", command, str(started)]
    script = f"import os; from support import bounded; bounded.run({words}, seconds=600, environment=os.environ)"
    other = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT / "tests", stderr=subprocess.DEVNULL)
    wait_until(started.exists, "the command")
    other.send_signal(number)
    other.wait(60)
    wait_until(lambda: processes.under(tmp_path) == [], "the end of the command")


def test_what_takes_too_long_is_gone_with_all_that_it_has_started_before_that_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started.never")
    command = ["sh", "-c", f"setsid sh -c '{STAYS}' $0 & setsid sh -c '{STAYS}' $0 & wait", str(tmp_path / "started")]
    with pytest.raises(subprocess.TimeoutExpired, match=r"/started'\]' timed out") as raised:
        bounded.run(command, seconds=0.5, environment=os.environ)
    assert processes.under(tmp_path) == []
    assert raised.value.cmd == command


def test_a_command_that_is_not_there_or_is_killed_answers_as_a_shell_tells_it() -> None:
    codes = [
        bounded.run(words, seconds=600, environment=os.environ).returncode for words in (["/no/such"], ["sh", "-c", "kill -9 $$"])
    ]
    assert codes == [127, 137]


def test_what_a_command_says_and_answers_is_kept_apart() -> None:
    done = bounded.run(["sh", "-c", "echo 1; echo 2 >&2; exit 3"], seconds=600, environment=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (3, "1\n", "2\n")
    assert bounded.run(["printf", r"\377"], seconds=600, environment=os.environ).stdout == "\ufffd", "of any bytes"


def test_of_two_at_once_one_builds_and_the_other_waits(log: Path, tmp_path: Path) -> None:
    source = next(source for source in binaries.SOURCES if "versitygw" in source.commands)
    folder = tmp_path / "cache" / "bin"
    folder.mkdir(parents=True)
    with (folder / f"{source.label}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [PYTHON, "-m", "support.ahead", "faults"]
        other = subprocess.Popen(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert other.stderr is not None
        assert other.stderr.readline() == f"another process is building {source.module}; waiting for it\n"
        source.program("versitygw").write_text("by the first")
    out, err = other.communicate()
    assert (other.returncode, err) == (0, "")
    assert re.search(r"^\[1/1\] versitygw: built in \d+ s; left: nothing$", out, re.MULTILINE)
    assert source.program("versitygw").read_text() == "by the first"
    assert "install" not in log.read_text()


def test_whoever_waits_for_a_stopped_builder_says_so_and_not_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    script = f"from support.build_lock import *; import signal\nwith held(Path({str(file)!r}), 'it', 9, print): signal.pause()"
    other = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT / "tests")
    try:
        wait_until(lambda: file.exists() and file.read_text(), "the builder")
        other.send_signal(signal.SIGSTOP)
        wait_until(lambda: os.waitid(os.P_PID, other.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT), "its stop")
        lines: list[str] = []
        who = rf"process {other.pid} \({re.escape(sys.executable)} -c .*\), which is stopped \(kill -CONT lets it go on\),"
        with pytest.raises(build_lock.WaitedTooLongError, match=rf"(?s)^{who} has been building it for 0 min, and should be done"):
            hold(file, lines)
        (line,) = lines
        assert re.fullmatch(rf"{who} is building it; waiting for it", line, re.DOTALL)
    finally:
        other.kill()
        other.wait()
    assert hold(file, lines) == str(os.getpid())


def hold(file: Path, lines: list[str]) -> str:
    with build_lock.held(file, "it", 0.5, lines.append):
        return file.read_text()


def test_where_there_is_no_room_for_all_of_them_nothing_is_begun(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free / 1e9
    begun: list[str] = []
    builds = [
        ahead.Build(what, 1, {tmp_path / "not" / "there" / what: free * 0.7}, lambda: begun.append("one"))
        for what in ("etcd", "the image")
    ]
    ahead.check_room(builds[:1])
    with pytest.raises(
        ahead.NoRoomError, match=r"GB are free there, and it takes \d+\.\d GB to build etcd, the image\. Free some, or"
    ):
        ahead.build_all(builds, begun.append)
    assert begun == []


def test_every_disk_that_something_comes_onto_is_looked_at(tmp_path: Path) -> None:
    memory = Path("/dev/shm/rlhf-not-there")
    assert memory.parent.stat().st_dev != tmp_path.stat().st_dev, "two disks"
    too_much = shutil.disk_usage(memory.parent).free / 1e9 + 1
    with pytest.raises(ahead.NoRoomError, match=r"^/dev/shm/rlhf-not-there: .* to build etcd\. Free some"):
        ahead.check_room([ahead.Build("etcd", 1, {tmp_path: 0.001, memory: too_much}, lambda: None)])


def test_what_go_compiles_its_sources_and_the_programs_come_into_folders_of_their_own(log: Path, tmp_path: Path) -> None:
    source = Source("a/b", "v1", {"b": "a/b"}, gigabytes=10)
    assert binaries.room(source) == {tmp_path / "go-cache": 6, tmp_path / "go-cache-mod": 3, tmp_path / "cache": 1}


@pytest.mark.parametrize(
    "script", [HANGS, "#!/bin/sh\nprintf '\\377\\n\\377\\n'\n", "#!/no/such\n", "#!/bin/sh\necho off; echo off\n"]
)
def test_a_go_that_does_not_say_where_it_keeps_things_holds_nobody_up(
    log: Path, tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_ENV_SECONDS", 0.5)
    be(tmp_path, script)
    source = Source("a/b", "v1", {"b": "a/b"}, gigabytes=10)
    assert binaries.room(source) == {tmp_path / "cache": 10}


def test_an_empty_cache_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is to a shell's ${RLHF_CACHE:-…}."""
    monkeypatch.setenv("RLHF_CACHE", "")
    assert binaries.cache() == Path("~/.cache/rlhf-operator").expanduser()


def test_a_folder_that_cannot_be_written_is_named(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert ahead.main(["faults"]) == 1
    said = capsys.readouterr().err
    assert re.search(
        rf"{tmp_path}/cache\S*: (Not a directory|File exists)\. Look at this folder's owner and disk; RLHF_CACHE", said
    )
    assert "Traceback" not in said


def test_make_test_has_all_of_them_and_what_only_needs_what_is_left_out_is_left_out_too() -> None:
    tokenizers = set(published.TOKENIZERS)
    everything = {*NAMES, *tokenizers, ahead.IMAGE}
    assert set(ahead.needed("test", {})) == everything
    left_out = everything - set(ahead.needed("test", {"RLHF_SKIP_NODE": "1"}))
    node = {"kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "coredns", "pause", "probe"}
    assert left_out == {*node, ahead.IMAGE}
    assert everything - set(ahead.needed("test", {"RLHF_SKIP_REAL": "1"})) == tokenizers
    assert set(ahead.needed("real", {})) == {*published.GIGABYTES, smollm2.NAME}


def test_beside_a_cluster_that_is_given_no_control_plane_is_built_that_nobody_starts() -> None:
    own = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
    assert own <= set(ahead.needed("crash-points", {}))
    assert set(ahead.needed("crash-points", {"KUBECONFIG": "/a/cluster"})) == set(ahead.needed("crash-points", {})) - own
    assert own <= set(ahead.needed("test", {"KUBECONFIG": "/a/cluster"})), "some tests start a cluster of their own all the same"


@pytest.mark.parametrize("use", ahead.USES)
def test_every_program_that_a_target_needs_is_one_that_can_be_built(use: str) -> None:
    assert set(ahead.needed(use, {})) <= {*NAMES, *published.GIGABYTES, smollm2.NAME, ahead.IMAGE}


@pytest.mark.parametrize(
    ("target", "steps"),
    [
        ("test", ["doctor.py --tests", "support.ahead test", "pytest"]),
        ("e2e", ["doctor.py --tests", "support.ahead e2e", "pytest"]),
        ("e2e-faults", ["doctor.py --tests", "support.ahead e2e", "pytest"]),
        ("test-real", ["support.ahead real", "pytest"]),
        ("test-faults", ["support.ahead faults", "pytest"]),
        ("test-crash-points", ["support.ahead crash-points", "pytest"]),
        ("test-fast", ["pytest"]),
    ],
)
def test_before_pytest_the_machine_is_looked_at_and_then_all_is_built(
    target: str, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "FOR"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run(["make", "-n", "-j4", target], cwd=ROOT, capture_output=True, text=True, check=True)
    first = re.compile(r"doctor\.py --tests|support\.ahead \S+|pytest")
    assert list(dict.fromkeys(first.findall(done.stdout))) == steps
