"""Stage processes without their imports: a process that has imported torch, transformers and vLLM forks each stage.

`python -m rlhf_trainer.process.forkserver SOCKET`, for the local backend on a machine without a GPU (a driver that was
initialised does not survive a fork). One connection is one stage process:

    client  {"argv": ["sample", "--config", "…"], "env": {…}, "log": "…"}   one line
    server  {"pid": 4711}                                                    one line, when it runs
    server  {"exit": 0}                                                      one line, when it has ended; -9 for SIGKILL

The server dies with its parent and its stages die with it; to the client, a connection that closes without an exit is a SIGKILL.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn, cast

from rlhf_api.words import StageName
from rlhf_trainer.runtime import processes
from rlhf_trainer.runtime.environment import before_imports, prepare_cpu_environment

#: What stages import, most expensive last. Names only: nothing of it is used here.
PRELOAD = (
    "yaml",
    "pyarrow.parquet",
    "sklearn.linear_model",
    "torch",
    "deepspeed",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "vllm",
    "vllm.entrypoints.llm",
    "rlhf_trainer.process.stage_process",
    "rlhf_trainer.training.rank.train",
    *(f"rlhf_trainer.stages.{stage}" for stage in StageName),
)

#: Of the server's own environment: the mark by which everything goes when the supervisor is gone.
_KEPT = ("RLHF_SUPERVISOR",)


def serve(path: Path) -> None:
    """Until killed."""
    processes.die_with(os.getppid())
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    before_imports()
    prepare_cpu_environment()
    for name in PRELOAD:
        importlib.import_module(name)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    connection, _ = listener.accept()
                    pid = _start(connection, listener, selector)
                    if pid is not None:
                        selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
                else:
                    _report_exit(selector, key)


def _start(connection: socket.socket, listener: socket.socket, selector: selectors.BaseSelector) -> int | None:
    line = connection.makefile("r").readline()
    if not line:
        connection.close()
        return None
    request = json.loads(line)
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        listener.close()
        selector.close()
        connection.close()
        _become_stage(request, server)
    _send(connection, {"pid": pid})
    return pid


def _report_exit(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    pid, connection = key.data
    selector.unregister(key.fileobj)
    os.close(cast("int", key.fileobj))
    _, status = os.waitpid(pid, 0)
    _send(connection, {"exit": os.waitstatus_to_exitcode(status)})
    connection.close()


def _become_stage(request: dict[str, Any], server: int) -> NoReturn:
    """In the child. Whatever goes wrong, this process ends here; the stage's log says what it was."""
    code = 1

    def stage() -> int:
        _leave_the_server(server, request["log"], request["env"])
        return _run(request["argv"])

    try:
        code = processes.exit_code_of(stage)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _leave_the_server(server: int, log: str, environment: dict[str, str]) -> None:
    """Its own session, log, environment."""
    os.setsid()
    processes.die_with(server)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, target)
    _show_mark(environment)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    os.environ.clear()
    os.environ.update(kept | environment)
    before_imports()
    prepare_cpu_environment()
    processes.warm = True


def _run(argv: list[str]) -> int:
    import torch

    # OMP_NUM_THREADS was read when torch was loaded, in the server.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    from .stage_process import main

    sys.argv = ["rlhf_trainer", *argv]
    return main(argv)


def _show_mark(environment: dict[str, str]) -> None:
    """Write the pod's uid over the server's in the very memory that /proc/<pid>/environ shows.

    Whoever cleans up after this pod finds its processes there, and those that it forks.
    """
    uid = environment.get("RLHF_POD_UID", "").encode()
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    place = getenv(b"RLHF_POD_UID")
    if place and len(uid) == len(os.environ.get("RLHF_POD_UID", "")):
        ctypes.memmove(place, uid, len(uid))


def _send(connection: socket.socket, message: dict[str, int]) -> None:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        # The client is gone; the stage ends by itself or with its supervisor.
        return


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
