"""`python -m rlhf_trainer STAGE --config FILE`: one stage."""

import signal

if __name__ == "__main__":
    # Before the imports, which take a second. To the first process of a container the kernel gives no signal that it has no handler
    # for: a SIGTERM of that second would be lost, and the pod would work on until its grace is over. One that is blocked waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    from rlhf_trainer.runtime.environment import before_imports

    before_imports()
    from rlhf_trainer.process.stage_process import run_and_exit

    run_and_exit()
