"""vLLM has a class for the policy; on a CPU it has kernels for the policy's heads, and room for one answer.

What a model's configuration tells, so that it is known before anything is trained. Where it tells less, the sampler will say.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_api.resource.model import Dtype
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import Storage
from rlhf_api.validation.rules.pods import gpu_limit
from rlhf_api.words import StageName
from rlhf_operator.core.jobs.pods import pod_of
from rlhf_trainer.data import sources
from rlhf_trainer.runtime.environment import CPU_KV_CACHE, prepare_cpu_environment
from rlhf_trainer.runtime.errors import ConfigurationProblem

_BYTES = {Dtype.BFLOAT16: 2, Dtype.FLOAT32: 4}


def sampler(spec: RLHFRunSpec, scratch: Path, storage: Storage, *, allow_cpu: bool) -> None:
    """`allow_cpu`: the run goes without the GPUs that its manifest asks for."""
    from transformers import AutoConfig

    model = spec.policy.model
    folder = sources.fetch_model(model, scratch, storage)
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=model.trust_remote_code)
    prepare_cpu_environment()
    _require_class(model.uri, config.architectures or [])
    if allow_cpu or not _asks_for_gpus(spec):
        text = config.get_text_config()
        _require_kernels(model.uri, text)
        _require_room(spec, text)


def _asks_for_gpus(spec: RLHFRunSpec) -> bool:
    resources = pod_of(spec, StageName.SAMPLE).resources
    return resources is not None and bool(gpu_limit(resources.limits))


def _require_class(uri: str, architectures: Sequence[str]) -> None:
    from vllm.model_executor.models.registry import ModelRegistry

    if architectures and not set(architectures) & set(ModelRegistry.get_supported_archs()):
        raise ConfigurationProblem(
            f"{uri} is {', '.join(architectures)}, and vLLM, which samples, has no such class in this version. Name a model of a "
            "class that it has."
        )


def _require_kernels(uri: str, config: Any) -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    size, supported = _head_size(config), CPUAttentionBackend.get_supported_head_sizes()
    if size is not None and size not in supported:
        raise ConfigurationProblem(
            f"{uri} has attention heads of {size}, and on a CPU vLLM, which samples, has kernels for "
            f"{', '.join(map(str, supported))}. Sample on a GPU (sample.pod.resources), or name another model."
        )


def _require_room(spec: RLHFRunSpec, config: Any) -> None:
    """vLLM starts with room for one prompt and its longest answer, or not at all."""
    size, layers = _head_size(config), getattr(config, "num_hidden_layers", None)
    heads = getattr(config, "num_key_value_heads", None)
    # Of compressed keys and of layers that look back a little, only vLLM knows the size.
    plain = getattr(config, "kv_lora_rank", None) is None and not getattr(config, "layer_types", None)
    if not plain or size is None or layers is None or heads is None:
        return
    tokens = spec.train.max_prompt_length + spec.sample.max_new_tokens
    needed = 2 * layers * heads * size * _BYTES[spec.policy.dtype] * tokens / 2**30
    name, otherwise = CPU_KV_CACHE
    own = {variable.name: variable.value for variable in pod_of(spec, StageName.SAMPLE).env or []}
    room = float(own.get(name, os.environ.get(name, otherwise)))
    if needed > room:
        raise ConfigurationProblem(
            f"On a CPU the sampler keeps keys and values in {room:g} GiB, and {tokens} tokens of {spec.policy.model.uri} take "
            f"{needed:.1f}. Lower train.maxPromptLength or sample.maxNewTokens, or raise {name} (GiB) in sample.pod.env and in "
            "evaluate.pod.env."
        )


def _head_size(config: Any) -> int | None:
    if getattr(config, "head_dim", None) is not None:
        return int(config.head_dim)
    width, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", None)
    return None if not width or not heads else int(width // heads)
