"""run --local as a process, on the real backend, with stages that compute nothing (tests/support/fake_stages)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from rlhfctl.exits import Exit
from support import example_runs
from support.documents import ROOT
from support.rlhfctl import Done, environment, rlhfctl
from support.waiting import wait_until

pytestmark = pytest.mark.processes

FAKE_STAGES = ROOT / "tests" / "support" / "fake_stages"


class Runner:
    """Runs rlhfctl in a folder of its own, with a manifest of one iteration."""

    def __init__(self, folder: Path, **changes: object) -> None:
        self.folder = folder
        spec = example_runs.spec("", **{"iterations": 1, "retry": {"application": 0, "backoffSeconds": 0}, **changes})
        del spec["storage"]
        manifest = {"apiVersion": "rlhf.dev/v1alpha1", "kind": "RLHFRun", "metadata": {"name": "tiny"}, "spec": spec}
        (folder / "run.yaml").write_text(yaml.safe_dump(manifest))
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlhfctl", *arguments],
            cwd=self.folder,
            env=environment(PYTHONPATH=str(FAKE_STAGES), **env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def run(self, **env: str) -> Done:
        return ended(self.start("run", "--local", "run.yaml", **env))

    def look(self, *arguments: str) -> Done:
        return rlhfctl(*arguments, "--local", cwd=self.folder)

    def held_in(self, stage: str) -> subprocess.Popen[str]:
        """A run that waits in `stage` until `release`."""
        process = self.start("run", "--local", "run.yaml", FAKE_HOLD=f"{stage}:{self.folder / 'go'}")
        wait_until(lambda: self.logs(stage) or process.poll() is not None, f"stage {stage}")
        assert process.poll() is None, process.communicate()
        return process

    def release(self) -> None:
        (self.folder / "go").touch()

    def logs(self, stage: str) -> list[Path]:
        return [path for path in self.folder.glob(f".rlhf/runs/tiny/logs/{stage}-*.log") if path.stat().st_size]

    def status(self) -> dict[str, object]:
        status = json.loads((self.folder / ".rlhf" / "runs" / "tiny" / "status.json").read_text())
        assert isinstance(status, dict)
        return status

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


def ended(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Callable[..., Runner]]:
    made: list[Runner] = []

    def make(**changes: object) -> Runner:
        made.append(Runner(tmp_path, **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_run_goes_through_all_its_stages_and_leaves_a_report(runner: Callable[..., Runner]) -> None:
    one = runner()
    done = one.run()
    assert done.code == 0, done.err
    assert "✓ tiny has succeeded" in done.out
    assert "best iterate  π1, win rate against π0 0.600 [0.560, 0.640]" in done.out
    assert "Stage train of iteration 1 is done" in done.err
    assert (one.folder / ".rlhf" / "runs" / "tiny" / "report.html").exists()
    again = one.run()
    assert again.code == 0
    assert len(one.logs("train")) == 1, "a run that has succeeded is not run again"


def test_a_stage_that_fails_ends_the_run_with_its_words_and_its_log(runner: Callable[..., Runner]) -> None:
    done = runner().run(FAKE_FAIL="sample:64")
    said = " ".join(done.err.split())
    assert done.code == Exit.RUN_FAILED
    assert done.out == ""
    assert "The fake stage was told to fail." in said
    assert "the end of .rlhf/runs/tiny/logs/sample-1-1" in said
    assert "| told to fail" in said


@pytest.mark.faults
def test_ctrl_c_stops_the_stage_after_a_checkpoint_and_the_same_command_resumes(runner: Callable[..., Runner]) -> None:
    one = runner()
    process = one.held_in("train")
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.code == Exit.INTERRUPTED
    assert "run 'tiny' is stopped; nothing is lost" in done.err
    assert "rlhfctl run --local run.yaml resumes it" in " ".join(done.err.split())
    assert "a checkpoint is written" in one.logs("train")[0].read_text()
    one.release()
    assert one.run().code == 0
    assert len(one.logs("sample")) == 1, "a finished stage is not done again"


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_that_end_a_process_do_the_same(runner: Callable[..., Runner], number: signal.Signals) -> None:
    process = runner().held_in("preflight")
    process.send_signal(number)
    assert ended(process).code == Exit.INTERRUPTED


@pytest.mark.faults
def test_a_second_ctrl_c_kills_at_once_and_nothing_of_the_run_lives_on(runner: Callable[..., Runner]) -> None:
    one = runner()
    process = one.start("run", "--local", "run.yaml", FAKE_HOLD=f"train:{one.folder / 'go'}", FAKE_DEAF="1")
    wait_until(lambda: bool(one.logs("train")), "stage train")
    process.send_signal(signal.SIGINT)
    wait_until(lambda: "deaf to SIGTERM" in one.logs("train")[0].read_text(), "SIGTERM to reach the stage")
    process.send_signal(signal.SIGINT)
    assert ended(process).code == Exit.INTERRUPTED
    wait_until(lambda: not _stages_in(one.folder), "the end of every stage process")


@pytest.mark.faults
def test_rlhfctl_killed_leaves_no_stage_behind_and_the_same_command_resumes(runner: Callable[..., Runner]) -> None:
    one = runner()
    process = one.held_in("train")
    process.kill()
    process.wait()
    wait_until(lambda: not _stages_in(one.folder), "the end of every stage process")
    one.release()
    assert one.run().code == 0
    assert len(one.logs("sample")) == 1


@pytest.mark.faults
def test_beside_a_run_at_work_others_look_wait_and_steer(runner: Callable[..., Runner]) -> None:
    one = runner()
    process = one.held_in("train")
    second = one.run()
    assert second.code == Exit.CONFLICT
    assert f"is driven by process {process.pid}" in " ".join(second.err.split())
    assert one.look("wait", "tiny", "--timeout", "0").code == Exit.TIMEOUT
    status = one.look("status", "tiny")
    assert "● train running" in status.out
    assert "0/10 steps  loss 0.69" in status.out
    for command in (("wait", "tiny"), ("logs", "tiny", "-f"), ("status", "tiny", "--watch")):
        watcher = one.start(*command, "--local")
        if command[0] == "wait":
            wait_until(partial(_has_handlers, watcher.pid), "rlhfctl wait to wait")
        else:
            assert watcher.stdout is not None
            watcher.stdout.readline()
        watcher.send_signal(signal.SIGINT)
        assert ended(watcher).code == Exit.DETACHED, command
    assert one.look("suspend", "tiny").code == 0
    assert ended(process).code == Exit.RUN_FAILED
    assert one.status()["phase"] == "Suspended"
    assert one.look("resume", "tiny").code == 0
    process = one.held_in("train")
    assert one.look("cancel", "tiny").code == 0
    assert ended(process).code == Exit.RUN_FAILED
    assert one.status()["phase"] == "Cancelled"
    one.release()
    anew = one.run()
    assert anew.code == 0, "applied again after a cancel, it begins anew"
    assert "Stage sample of iteration 1 is done already" in anew.err


def test_a_gate_pauses_the_run_and_an_approval_lets_it_go_on(runner: Callable[..., Runner]) -> None:
    one = runner(gates=[{"name": "length", "metric": "meanLengthRatioVsInitial", "max": 1.5, "action": "Pause"}])
    paused = one.run()
    assert paused.code == Exit.RUN_FAILED
    assert "rlhfctl approve tiny --local" in paused.err
    assert one.look("approve", "tiny").code == 0
    assert one.run().code == 0
    assert len(one.logs("train")) == 1


def _stages_in(folder: Path) -> list[int]:
    """Processes of stages whose attempt lies in `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"rlhf_trainer" in words and any(word.startswith(os.fsencode(folder)) for word in words):
            found.append(int(path.parent.name))
    return found


def _has_handlers(pid: int) -> bool:
    """Whether Python has begun to catch signals, and the command waits."""
    status = Path(f"/proc/{pid}/status").read_text()
    return (
        "State:\tS" in status
        and int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16) & 2 > 0
    )
