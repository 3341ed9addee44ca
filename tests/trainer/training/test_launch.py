"""How the ends of ranks become the end of their stage."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from rlhf_api.resource.compute import Optimization
from rlhf_api.resource.model import Dtype
from rlhf_api.resource.storage import Storage
from rlhf_trainer.runtime.errors import ApplicationProblem, StageError
from rlhf_trainer.training import launch
from rlhf_trainer.training.job import ObjectiveName, TrainingJob
from rlhf_trainer.training.protocol import PEER_LOST, Outcome, RankError
from support.waiting import wait_until


def job_in(folder: Path) -> TrainingJob:
    return TrainingJob(
        objective=ObjectiveName.SUPERVISED,
        folder=str(folder),
        examples=str(folder / "examples.arrow"),
        model_folder=str(folder / "model"),
        dtype=Dtype.FLOAT32,
        optimization=Optimization.model_validate({"learningRate": 1e-3, "globalBatchSize": 4}),
        deepspeed={},
        gradient_checkpointing=False,
        checkpoint_every_steps=10,
        seed=0,
        fingerprint="f" * 64,
        storage=Storage(url=f"file://{folder}/store"),
        attempt=1,
        node=0,
    )


def ended(
    folder: Path, errors: dict[int, tuple[int, str]], exits: dict[int, int] | None, code: int = 1, problem: str | None = None
) -> StageError:
    job = job_in(folder)
    for rank, (exit_code, reason) in errors.items():
        error = RankError(exit=exit_code, reason=reason, message=f"rank {rank} says")
        (folder / f"rank-{rank}.json").write_text(json.dumps(error.to_wire()))
    if exits is not None:
        job.outcome_file.write_text(json.dumps(Outcome(exits=exits, problem=problem).to_wire()))
    return launch._error_of(job, code)


def test_last_words_that_do_not_fit_the_disk_leave_nothing_that_would_be_read(tmp_path: Path) -> None:
    """Half a file would stand in the way of what other ranks have said."""
    full = """
        import resource, signal, sys
        from pathlib import Path
        from rlhf_trainer.training.worker import RankError, leave_word
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
        leave_word(Path(sys.argv[1]), "rank-1.json", RankError(exit=1, reason="DiskFull", message="x" * 100))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(full), tmp_path], stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == 1
    error = ended(tmp_path, {0: (1, "DiskFull")}, {0: 1, 1: 1})
    assert error.reason == "DiskFull"


APPLICATION, CONFIGURATION, LOST = (1, "LossNotFinite"), (64, "ReferenceMismatch"), (1, PEER_LOST)


@pytest.mark.parametrize(
    ("errors", "exits", "expected"),
    [
        ({0: CONFIGURATION, 1: LOST}, {0: 64}, (64, "ReferenceMismatch")),
        ({0: LOST, 1: APPLICATION}, {0: 1, 1: 1}, (1, "LossNotFinite")),
        ({0: APPLICATION, 1: CONFIGURATION}, {0: 1}, (64, "ReferenceMismatch")),
        ({0: (75, "StoreUnavailable"), 1: LOST}, {0: 75}, (75, "StoreUnavailable")),
        ({0: (143, "Preempted"), 1: (143, "Preempted")}, {0: 143}, (143, "Preempted")),
        ({0: LOST}, {1: -signal.SIGKILL}, (137, "Killed")),
        ({}, {0: -signal.SIGKILL, 1: -signal.SIGTERM}, (137, "Killed")),
        ({0: LOST}, {1: -signal.SIGSEGV}, (1, "RankCrashed")),
        ({}, {1: 1}, (1, "RankCrashed")),
        ({0: LOST, 1: LOST}, {0: 1, 1: 1}, (137, "Killed")),
    ],
)
def test_a_ranks_own_error_counts_before_those_of_its_peers(
    tmp_path: Path, errors: dict[int, tuple[int, str]], exits: dict[int, int], expected: tuple[int, str]
) -> None:
    error = ended(tmp_path, errors, exits)
    assert (int(error.exit), error.reason) == expected


def test_a_torchrun_that_dies_itself_is_infrastructure(tmp_path: Path) -> None:
    error = ended(tmp_path, {}, None, code=-signal.SIGKILL)
    assert (int(error.exit), "SIGKILL" in str(error)) == (137, True)


def test_a_torchrun_that_fails_by_itself_is_no_infrastructure_and_the_log_has_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a process, and forked from a warm one: a hundred attempts would fail in the same way."""

    def broken(*_: object) -> int:
        raise ZeroDivisionError("of the agent itself")

    monkeypatch.setattr("rlhf_trainer.training.launch.agent.main", broken)
    monkeypatch.setattr("rlhf_trainer.training.launch.processes.warm", True)
    with pytest.raises(ApplicationProblem, match=r"torchrun itself ended with exit code 1.*The log") as raised:
        launch.launch_ranks(job_in(tmp_path), 1)
    assert raised.value.reason == "TorchrunCrashed"
    assert "ZeroDivisionError: of the agent itself" in capfd.readouterr().err
    assert ended(tmp_path, {}, None, code=2).exit == 1


def test_a_port_that_is_taken_is_the_networks_and_another_attempt_may_have_more_luck(tmp_path: Path) -> None:
    """Only the port of a rendezvous over several nodes is a fixed one; on one node torchrun binds a free one itself."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        outcome = tmp_path / "outcome.json"
        address = ["--master-addr", "127.0.0.1", "--master-port", str(taken.getsockname()[1])]
        command = [sys.executable, "-m", "rlhf_trainer.training.agent", str(outcome), "--nproc-per-node", "1", *address]
        done = subprocess.run([*command, "-m", "never.started"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "EADDRINUSE" in (Outcome.model_validate_json(outcome.read_text()).problem or "")


def test_ranks_that_do_not_find_each_other_are_transient(tmp_path: Path) -> None:
    error = ended(tmp_path, {}, {}, problem="RendezvousTimeoutError: ")
    assert (int(error.exit), error.reason) == (75, "RendezvousFailed")


def test_a_process_dies_with_its_parent(tmp_path: Path) -> None:
    """Whatever ends the parent; a child that was orphaned before it could say so ends too."""
    child = (
        "import os, sys, time; from rlhf_trainer.runtime.processes import die_with; die_with(int(sys.argv[1]));"
        "open(sys.argv[2], 'w').write(str(os.getpid())); time.sleep(600)"
    )
    parent = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, str(os.getpid()), sys.argv[1]])"
    started = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path / "pid")])
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the child")
    pid = int((tmp_path / "pid").read_text())
    started.kill()
    started.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the child's end")
    orphan = subprocess.run([sys.executable, "-c", child, "1", str(tmp_path / "never")], check=False)
    assert orphan.returncode != 0
    assert not (tmp_path / "never").exists()


def test_a_signal_that_another_thread_takes_is_heeded_while_the_stage_waits_for_its_ranks() -> None:
    """As the kernel chooses for a stage that was stopped."""
    ranks = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    before = signal.signal(signal.SIGUSR1, lambda *_: ranks.kill())
    threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)).start()
    try:
        launch._await_end(ranks.pid)
    finally:
        ranks.kill()
        signal.signal(signal.SIGUSR1, before)
    assert ranks.wait() == -signal.SIGKILL
