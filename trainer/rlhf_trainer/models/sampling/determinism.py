"""vLLM's batch-invariant mode, in which nothing beside a request changes its tokens: what it needs, and whether it is there.

https://docs.vllm.ai/en/v0.32.0/features/batch_invariance/
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from rlhf_trainer.runtime.errors import ConfigurationProblem

VARIABLE = "VLLM_BATCH_INVARIANT"
#: Compute capability of an NVIDIA GPU, by vLLM's documentation.
CAPABILITY = (8, 0)
#: Attention backends of vLLM that say that they support it; where none is named, vLLM takes one of these.
BACKENDS = ("FLASH_ATTN", "TRITON_ATTN", "FLEX_ATTENTION", "FLASH_ATTN_MLA", "TRITON_MLA")
#: Bytes: under tensor parallelism a hidden state must be a multiple of it, by vLLM's documentation.
_ALIGNMENT = 16
#: Layers of transformers' names whose kernels vLLM has in the mode; recurrent ones it has not.
_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
_DOCUMENTED = "https://docs.vllm.ai/en/v0.32.0/features/batch_invariance/"
COST = (
    "sample.deterministic: vLLM's documentation says that its batch-invariant mode may cost speed, gives no figure, and calls it "
    f"beta ({_DOCUMENTED}). Measure on your GPUs before you rely on a schedule."
)
_WITHOUT = "or write sample.deterministic: false: seeds stay those of each prompt, and what shares a batch decides the last bits."


class Answered(Protocol):
    """A completion, as the engine gives it."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def logps(self) -> Sequence[float]: ...


def require_gpu(*, cpu: bool, capability: tuple[int, int] | None = None) -> None:
    """`capability`: of the GPU, where one is there to be asked. Raises ConfigurationProblem."""
    if cpu:
        raise ConfigurationProblem(
            "sample.deterministic is true, and on a CPU vLLM has no batch-invariant mode: what shares a batch with a prompt may "
            f"change its tokens there. Sample on a GPU (sample.pod.resources), {_WITHOUT}"
        )
    if capability is not None and capability < CAPABILITY:
        raise ConfigurationProblem(
            f"sample.deterministic is true, and this GPU has compute capability {_version(capability)}: vLLM's batch-invariant "
            f"mode needs {_version(CAPABILITY)} or higher (A100, H100). Sample on such a GPU (sample.pod.nodeSelector), {_WITHOUT}"
        )


def require_settings(options: Mapping[str, object], environment: Mapping[str, str]) -> None:
    """`options`: vLLM's arguments; `environment`: of the process that samples. Raises ConfigurationProblem."""
    value = environment.get(VARIABLE)
    if value not in (None, "1"):
        raise ConfigurationProblem(
            f"sample.deterministic is true, and {VARIABLE} is {value!r} in the environment of stage sample, which switches vLLM's "
            "batch-invariant mode off. Take it out of sample.pod.env."
        )
    backend = options.get("attention_backend")
    if backend is not None and str(backend).upper() not in (*BACKENDS, "AUTO"):
        raise ConfigurationProblem(
            f"sample.deterministic is true, and sample.engine.extraArgs has --attention-backend={backend}, which is not "
            f"batch-invariant. Name one of {', '.join(BACKENDS)}, or leave it to vLLM."
        )


def require_aligned(uri: str, hidden_size: int, bytes_each: int, tensor_parallel_size: int) -> None:
    """Raises ConfigurationProblem for a model whose parts vLLM would add up in an order that depends on the batch."""
    if tensor_parallel_size > 1 and hidden_size * bytes_each % _ALIGNMENT:
        raise ConfigurationProblem(
            f"sample.deterministic is true, and a hidden state of {uri} has {hidden_size * bytes_each} bytes (hidden_size "
            f"{hidden_size}): with sample.engine.tensorParallelSize {tensor_parallel_size} vLLM's batch-invariant mode needs a "
            f"multiple of {_ALIGNMENT}. Write tensorParallelSize: 1, {_WITHOUT}"
        )


def require_attention(uri: str, layers: Collection[str]) -> None:
    """`layers`: their kinds, as config.json has them; none: all attend. Raises ConfigurationProblem.

    vLLM says it in the log of its engine, in another process, and here no more than that this has not started.
    """
    if others := sorted(set(layers) - _LAYERS):
        raise ConfigurationProblem(
            f"sample.deterministic is true, and {uri} has layers of kind {', '.join(others)}, for which vLLM has no "
            f"batch-invariant kernels. Name a model whose layers all attend, {_WITHOUT}"
        )


def require_same(alone: Sequence[Answered], together: Sequence[Answered]) -> None:
    """The same requests, one at a time and in one batch. Raises ConfigurationProblem where a token or a bit of a log-prob differs.

    An engine that does not know the mode, or takes no notice of it, says nothing of that.
    """
    for number, (one, other) in enumerate(zip(alone, together, strict=True)):
        if list(one.ids) != list(other.ids) or list(one.logps) != list(other.logps):
            place = next(
                (place for place, pair in enumerate(zip(_told(one), _told(other), strict=False)) if pair[0] != pair[1]),
                min(len(one.ids), len(other.ids)),
            )
            raise ConfigurationProblem(
                f"sample.deterministic is true, {VARIABLE} is set, and vLLM takes no notice of it: request {number} of a trial "
                f"is answered otherwise in a batch than alone, from token {place} on. Another model or attention backend "
                f"(sample.engine.extraArgs) may do, {_WITHOUT}",
                reason="NotDeterministic",
            )


def _told(answered: Answered) -> list[tuple[int, float]]:
    return list(zip(answered.ids, answered.logps, strict=True))


def _version(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
