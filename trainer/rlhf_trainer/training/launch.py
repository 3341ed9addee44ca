"""Ranks of a training stage, as a child torchrun of the stage process; their errors become the stage's.

torchrun answers 1 whatever a rank answered, and on SIGTERM it kills its workers after 30 s. So it runs in a session of its own,
where no signal reaches it. The stage process tells the ranks to stop by a file, which counts even while they still load; they
checkpoint together, and it reads how each ended. If the stage process or torchrun is killed, the kernel kills the ranks.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rlhf_api.words import StageExit
from rlhf_trainer.runtime import processes
from rlhf_trainer.runtime.errors import BY_EXIT, ApplicationProblem, RankKilled, StageError, Transient
from rlhf_trainer.runtime.logs import say_now

from . import agent
from .job import TrainingJob
from .protocol import PEER_LOST, ROOM, ROOM_FILE, STAGE_PID, Outcome, RankError

_SHORT_MILLISECONDS = 200


def launch_ranks(job: TrainingJob, ranks: int, meanwhile: AbstractContextManager[object] | None = None) -> None:
    """Runs the written job to its end. Raises the StageError of the rank that failed for a reason of its own.

    meanwhile: entered when the ranks have been started, for a process that has threads cannot be forked safely.
    """
    for stale in [*job.path.glob("rank-*.json"), job.outcome_file, job.stop_file]:
        stale.unlink(missing_ok=True)
    (job.path / ROOM_FILE).write_bytes(bytes(ROOM))
    arguments = [str(job.outcome_file), "--max-restarts", "0", "--nproc-per-node", str(ranks)]
    if "PET_NNODES" not in os.environ:
        arguments += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--rdzv-id", job.fingerprint, "--nnodes", "1"]
    arguments += ["-m", "rlhf_trainer.training.worker", str(job.job_file)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // ranks))
    with _sigterm_stops_ranks(job):
        code = _run_agent(arguments, threads, meanwhile or nullcontext())
    if code != 0:
        raise _error_of(job, code)


def _run_agent(arguments: list[str], threads: str, meanwhile: AbstractContextManager[object]) -> int:
    """The exit code of torchrun, as Popen has it; forked where that saves its imports and those of the ranks."""
    stage = os.getpid()
    if not processes.warm:
        command = [sys.executable, "-m", "rlhf_trainer.training.agent", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": threads, STAGE_PID: str(stage)}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        with meanwhile:
            _await_end(process.pid)
        return process.wait()
    pid = os.fork()
    if pid == 0:
        code = 1

        def torchrun() -> int:
            os.setsid()
            processes.die_with(stage)
            os.environ["OMP_NUM_THREADS"] = threads
            return agent.main(arguments)

        try:
            code = processes.exit_code_of(torchrun)
        finally:
            os._exit(code)
    with meanwhile:
        _await_end(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _await_end(child: int) -> None:
    """In short waits: the kernel may give a signal to another thread of ours, and its handler runs only between two of them."""
    descriptor = os.pidfd_open(child)
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        while not ended.poll(_SHORT_MILLISECONDS):
            pass
    finally:
        os.close(descriptor)


def _error_of(job: TrainingJob, code: int) -> StageError:
    """What to tell of several failures: a rank's own error before a death without a word, and that before those of its peers."""
    errors = [RankError.model_validate_json(path.read_text()) for path in sorted(job.path.glob("rank-*.json"))]
    own = [error for error in errors if error.reason != PEER_LOST]
    if own:
        order = [StageExit.CONFIGURATION, StageExit.APPLICATION, StageExit.TRANSIENT, StageExit.PREEMPTED]
        first = min(own, key=lambda error: order.index(StageExit(error.exit)))
        return BY_EXIT[first.exit](first.message, reason=first.reason)
    if not job.outcome_file.exists():
        if code < 0:
            return RankKilled(f"torchrun ended with {_told(code)} and without a word: killed from outside, or out of memory.")
        return ApplicationProblem(
            f"torchrun itself ended with {_told(code)}, not one of its ranks. The log of this attempt has its trace.",
            reason="TorchrunCrashed",
        )
    outcome = Outcome.model_validate_json(job.outcome_file.read_text())
    if outcome.problem is not None:
        return Transient(f"The ranks of this training did not find each other: {outcome.problem}", reason="RendezvousFailed")
    silent = {rank: exit_code for rank, exit_code in outcome.exits.items() if not (job.path / f"rank-{rank}.json").exists()}
    crashed = {rank: exit_code for rank, exit_code in silent.items() if exit_code not in (-signal.SIGKILL, -signal.SIGTERM)}
    if crashed:
        rank, exit_code = next(iter(crashed.items()))
        return ApplicationProblem(
            f"Rank {rank} ended with {_told(exit_code)} and without a word. The log has what it said last.", reason="RankCrashed"
        )
    if silent:
        ranks = ", ".join(str(rank) for rank in sorted(silent))
        return RankKilled(f"Rank {ranks} was killed ({_told(next(iter(silent.values())))}): from outside, or out of memory.")
    return RankKilled("Ranks of another node went away; this node's could not go on without them.")


@contextmanager
def _sigterm_stops_ranks(job: TrainingJob) -> Iterator[None]:
    def stop(*_: object) -> None:
        job.stop_file.touch()
        say_now("SIGTERM: asking the ranks to checkpoint")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _told(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"
