"""One rank as a process: `torchrun -m rlhf_trainer.training.worker JOB`. How it fails goes to a file: torchrun answers 1 for all.

Nothing heavy is imported before signals are taken and errors are recorded.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from rlhf_trainer.runtime.errors import ApplicationProblem, StageError
from rlhf_trainer.runtime.logs import log_to_stderr
from rlhf_trainer.runtime.processes import die_with

from .protocol import AGENT_PID, PEER_LOST, STOP_FILE, RankError, leave_word


def main(argv: list[str]) -> int:
    """Exit code: that of the error; the error itself is in <folder>/rank-<n>.json."""
    log_to_stderr()
    file = Path(argv[0])
    stop_requested = _stop_requested(file.parent)
    if AGENT_PID in os.environ:
        die_with(int(os.environ[AGENT_PID]))
    error: StageError
    try:
        from rlhf_trainer.data.examples import Examples
        from rlhf_trainer.training.rank.train import train

        from .job import TrainingJob

        job = TrainingJob.read(file)
        train(job, Examples(Path(job.examples)), stop_requested)
    except StageError as raised:
        error = raised
    except Exception as raised:
        traceback.print_exc()
        error = _told(raised)
    else:
        return 0
    record = RankError(exit=int(error.exit), reason=error.reason, message=str(error))
    try:
        leave_word(file.parent, f"rank-{os.environ['RANK']}.json", record)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Not sys.exit: DeepSpeed's and gloo's threads wait for peers that are gone.
        os._exit(int(error.exit))


def _stop_requested(folder: Path) -> Callable[[], bool]:
    """True once this rank got SIGTERM, or the stage process left word that it did."""
    signalled = False

    def request(*_: object) -> None:
        nonlocal signalled
        signalled = True

    signal.signal(signal.SIGTERM, request)
    signal.signal(signal.SIGINT, request)
    return lambda: signalled or (folder / STOP_FILE).exists()


def _told(error: Exception) -> StageError:
    """In the stage's words; a peer that went away is told apart, for its own error is the one that counts."""
    import torch.distributed as dist

    from rlhf_trainer.runtime.failures import from_exception

    text = str(error)
    lost = ("Connection closed by peer", "Connection reset by peer", "gloo/transport")
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(word in text for word in lost)):
        return ApplicationProblem(f"A peer rank went away: {text.splitlines()[0]}", reason=PEER_LOST)
    return from_exception(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
