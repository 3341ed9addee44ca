"""Ranks of a training stage, as a child torchrun of the stage process; their errors become the stage's.

torchrun answers 1 whatever a rank answered, and on SIGTERM it kills its workers after 30 s. So it runs in a session of its own,
where no signal reaches it: the stage process passes SIGTERM to the ranks, which checkpoint together, and reads their error files.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_api.words import StageExit

from ..errors import BY_EXIT, RankKilled, StageError
from ..runtime import log
from .job import TrainingJob

_PR_SET_PDEATHSIG = 1


def launch_ranks(job: TrainingJob, job_file: Path, processes: int) -> None:
    """Runs the job to its end. Raises the StageError of the rank that failed for a reason of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "0", "--nproc-per-node", str(processes)]
    if "PET_NNODES" not in os.environ:
        command += ["--standalone", "--nnodes", "1"]
    command += ["-m", "rlhf_trainer.training.worker", str(job_file)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // processes))
    for stale in [*job.path.glob("rank-*.json"), *job.path.glob("rank-*.pid")]:
        stale.unlink()
    torchrun = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": threads}, start_new_session=True, preexec_fn=_die_with_parent
    )
    with _sigterm_goes_to_ranks(job):
        code = torchrun.wait()
    if code != 0:
        raise _error_of(job, processes)


def _error_of(job: TrainingJob, processes: int) -> StageError:
    """What to tell of several failures: a rank's own error before those of its peers, who only saw it go."""
    records = [json.loads(path.read_text()) for path in sorted(job.path.glob("rank-*.json"))]
    own = [record for record in records if record["reason"] != "PeerLost"]
    order = [StageExit.CONFIGURATION, StageExit.APPLICATION, StageExit.TRANSIENT, StageExit.PREEMPTED]
    if own:
        first = min(own, key=lambda record: order.index(StageExit(record["exit"])))
        return BY_EXIT[first["exit"]](first["message"], reason=first["reason"])
    return RankKilled(
        f"{processes - len(records)} of {processes} ranks of this node ended without a word: killed from outside, or out of memory."
    )


@contextmanager
def _sigterm_goes_to_ranks(job: TrainingJob) -> Iterator[None]:
    def forward(*_: object) -> None:
        pids = [int(path.read_text() or 0) for path in job.path.glob("rank-*.pid")]
        log.info("SIGTERM: asking %d ranks to checkpoint", len(pids))
        for pid in filter(None, pids):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
