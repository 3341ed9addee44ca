"""What is set in the environment before heavy libraries are imported."""

from __future__ import annotations

import os

#: GiB of keys and values that the sampler keeps on a CPU, where the pod's own environment does not say.
CPU_KV_CACHE = ("VLLM_CPU_KVCACHE_SPACE", "1")


def before_imports() -> None:
    """Before libraries are imported. A bar that goes back to the beginning of its line a thousand times is no line of a log. And a
    thread that waits for the others of its process sleeps: it would turn, and keep a core from the processes beside it."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def prepare_engine_environment(*, cpu: bool, deterministic: bool = False) -> None:
    """Before vLLM is imported into a process that has torch."""
    if cpu:
        prepare_cpu_environment()
    for name, value in engine_environment(cpu=cpu, deterministic=deterministic).items():
        os.environ.setdefault(name, value)


def engine_environment(*, cpu: bool, deterministic: bool = False) -> dict[str, str]:
    """What is set for vLLM, where the pod's own environment does not say. deterministic: a GPU's batch-invariant mode."""
    found = {"VLLM_NO_USAGE_STATS": "1"}
    if not cpu:
        # torch was asked for a GPU in this process: a fork of it cannot use one.
        found["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    if deterministic:
        found["VLLM_BATCH_INVARIANT"] = "1"
    return found


def prepare_cpu_environment() -> None:
    """Before vLLM is imported. The engine runs in this process: a second one would import everything again; and without dynamo no
    compiler is needed."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault(*CPU_KV_CACHE)
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
