"""torchrun, as a child of the stage process: `python -m rlhf_trainer.training.agent OUTCOME TORCHRUN-ARGUMENTS…`.

torchrun's own exit code is 1 whatever its ranks answered. This writes how each rank ended to the file OUTCOME. In a warm process
the same agent of torch forks the ranks, so that they have its imports.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rlhf_trainer.runtime import processes

from .protocol import AGENT_PID, STAGE_PID, Outcome, leave_word


def main(argv: list[str]) -> int:
    if STAGE_PID in os.environ:
        processes.die_with(int(os.environ.pop(STAGE_PID)))
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args, run

    from .worker import main as rank

    outcome = Path(argv[0])
    os.environ[AGENT_PID] = str(os.getpid())
    arguments = parse_args(argv[1:])
    try:
        if processes.warm:
            config, _, _ = config_from_args(arguments)
            config.start_method = "fork"
            elastic_launch(config, rank)([str(argument) for argument in arguments.training_script_args])
        else:
            run(arguments)
    except ChildFailedError as error:
        exits = {int(rank): int(failure.exitcode) for rank, failure in error.failures.items()}
        leave_word(outcome.parent, outcome.name, Outcome(exits=exits))
        return 1
    # A port that is taken, a store that does not answer: of the network, so another attempt may have more luck.
    except (RendezvousError, DistError) as error:
        leave_word(outcome.parent, outcome.name, Outcome(problem=f"{type(error).__name__}: {error}"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
