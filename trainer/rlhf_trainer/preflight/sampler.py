"""vLLM has a class for the policy and takes its arguments; on a CPU it has kernels for the policy's heads, and room for one answer.

What a model's configuration tells, so that it is known before anything is trained. Where it tells less, the sampler will say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_api.resource.model import Dtype, ModelRef
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import Storage
from rlhf_api.validation.rules.pods import gpu_limit
from rlhf_api.words import StageName
from rlhf_operator.core.jobs.pods import pod_of
from rlhf_trainer.data import sources
from rlhf_trainer.models.sampling.determinism import (
    CAPABILITY,
    COST,
    require_aligned,
    require_attention,
    require_gpu,
    require_settings,
)
from rlhf_trainer.models.sampling.engine import engine_options
from rlhf_trainer.runtime.environment import CPU_KV_CACHE, prepare_cpu_environment
from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line

from .configuration import architectures_of, transformers_config

_BYTES = {Dtype.BFLOAT16: 2, Dtype.FLOAT32: 4}


@dataclass(frozen=True)
class _Attention:
    """Of a model, as vLLM reads its configuration."""

    heads: int
    kv_heads: int
    head_size: int
    layers: int
    plain: bool
    """Every layer keeps the keys and values of all its heads, and of all tokens."""


def sampler(spec: RLHFRunSpec, scratch: Path, storage: Storage, warnings: list[str], *, allow_cpu: bool) -> None:
    """`allow_cpu`: the run goes without the GPUs that its manifest asks for."""
    attention = _readable(spec.policy.model, scratch, storage, "which samples")
    cpu = without_gpus(spec, StageName.SAMPLE, allow_cpu=allow_cpu)
    own = {variable.name: variable.value for variable in pod_of(spec, StageName.SAMPLE).env or [] if variable.value is not None}
    environment = os.environ | own
    options = engine_options(spec.sample.engine, _longest(spec), environment, cpu=cpu)
    if spec.sample.deterministic:
        require_gpu(cpu=cpu)
        require_settings(options, environment)
        _require_invariant(spec, scratch, storage)
        warnings.append(COST)
        warnings.append(
            f"sample.deterministic needs GPUs of compute capability {'.'.join(map(str, CAPABILITY))} or higher. preflight runs "
            "without one and cannot look; sample does, before it samples, and tries a few prompts alone and together."
        )
    if cpu:
        room = _room(environment)
        if attention is not None and attention.plain:
            _require_kernels(spec.policy.model.uri, attention, "which samples", "sample.pod.resources")
            _require_room(spec, attention, room)


def _require_invariant(spec: RLHFRunSpec, scratch: Path, storage: Storage) -> None:
    model, engine = spec.policy.model, spec.sample.engine
    text = transformers_config(sources.fetch_without_weights(model, scratch, storage), model).get_text_config()
    require_attention(model.uri, getattr(text, "layer_types", None) or ())
    size = getattr(text, "hidden_size", None)
    if isinstance(size, int):
        require_aligned(model.uri, size, _BYTES[spec.policy.dtype], engine.tensor_parallel_size)


def judging(model: ModelRef, stage: StageName, scratch: Path, storage: Storage, *, cpu: bool) -> None:
    """The same of a chat model that a stage reads itself to judge: how long its questions are is another matter."""
    attention = _readable(model, scratch, storage, "which reads the judge")
    if cpu and attention is not None and attention.plain:
        _require_kernels(model.uri, attention, "which reads the judge", f"{stage}.pod.resources")


def without_gpus(spec: RLHFRunSpec, stage: StageName, *, allow_cpu: bool) -> bool:
    """The stage's engine runs on a CPU."""
    resources = pod_of(spec, stage).resources
    return allow_cpu or resources is None or not gpu_limit(resources.limits)


def _readable(model: ModelRef, scratch: Path, storage: Storage, reader: str) -> _Attention | None:
    """vLLM has a class for the model, and can make sense of its attention."""
    folder = sources.fetch_without_weights(model, scratch, storage)
    architectures = architectures_of(folder, model)
    config = transformers_config(folder, model)
    prepare_cpu_environment()
    _require_class(model.uri, architectures, config, reader)
    attention = _attention(model, config)
    if attention is not None:
        _require_heads(model.uri, attention)
    return attention


def _require_class(uri: str, architectures: Sequence[str], config: Any, reader: str) -> None:
    from vllm.model_executor.models.registry import ModelRegistry

    if not architectures or set(architectures) & set(ModelRegistry.get_supported_archs()):
        return
    if not _runs_as_transformers_has_it(architectures[0], config):
        raise ConfigurationProblem(
            f"{uri} is {', '.join(architectures)}, and vLLM, {reader}, has no such class in this version. Name a model of a "
            "class that it has."
        )


def _runs_as_transformers_has_it(architecture: str, config: Any) -> bool:
    """vLLM puts its own attention into transformers' class where it has none itself; by the conditions of its registry.

    Of a class in the model's own code it will say itself.
    """
    import transformers

    known: Any = getattr(transformers, architecture, None)
    if known is None:
        return any(name.startswith("AutoModel") for name in getattr(config, "auto_map", None) or {})
    model = isinstance(known, type) and issubclass(known, transformers.PreTrainedModel)
    return model and bool(known.is_backend_compatible() or known._can_set_attn_implementation())


def _attention(model: ModelRef, config: Any) -> _Attention | None:
    """None of a model that has none. Raises ConfigurationProblem where vLLM could not make sense of it either."""
    from vllm.transformers_utils.model_arch_config_convertor import MODEL_ARCH_CONFIG_CONVERTORS, ModelArchConfigConvertorBase

    try:
        text = config.get_text_config()
        if text is not config and not hasattr(text, "num_attention_heads"):
            raise ConfigurationProblem(
                f"{model.uri}: text_config in its config.json has no num_attention_heads, and vLLM, which samples, refuses it so. "
                "Name a model whose files belong together."
            )
        if getattr(text, "num_attention_heads", None) is None:
            return None
        read = MODEL_ARCH_CONFIG_CONVERTORS.get(config.model_type, ModelArchConfigConvertorBase)(config, text)
        # Of layers that differ only vLLM knows.
        if read.get_per_layer_hf_configs() is not None:
            return None
        layers = getattr(text, "layer_types", None) or ()
        compressed = getattr(text, "kv_lora_rank", None) is not None
        return _Attention(
            heads=int(read.get_total_num_attention_heads()),
            kv_heads=int(read.get_total_num_kv_heads()),
            head_size=int(read.get_head_size()),
            layers=int(read.get_num_hidden_layers()),
            plain=not compressed and set(layers) <= {"full_attention"},
        )
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ConfigurationProblem(
            f"{model.uri}: vLLM, which samples, cannot read the heads and layers in its config.json: {type(error).__name__}: "
            f"{first_line(error)}. Correct it, or name another model."
        ) from error


def _require_heads(uri: str, attention: _Attention) -> None:
    if attention.heads < 1 or attention.kv_heads < 1 or attention.heads % attention.kv_heads:
        raise ConfigurationProblem(
            f"{uri} has {attention.heads} attention heads (num_attention_heads) and {attention.kv_heads} for keys and values "
            "(num_key_value_heads) by its config.json: the former must be a multiple of the latter, and neither be less than 1. "
            "Correct it, or name another model."
        )


def _require_kernels(uri: str, attention: _Attention, reader: str, resources: str) -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    supported = CPUAttentionBackend.get_supported_head_sizes()
    if attention.head_size not in supported:
        raise ConfigurationProblem(
            f"{uri} has attention heads of {attention.head_size}, and on a CPU vLLM, {reader}, has kernels for "
            f"{', '.join(map(str, supported))}. Give it a GPU ({resources}), or name another model."
        )


def _longest(spec: RLHFRunSpec) -> int:
    """Tokens of a prompt and its answer."""
    return spec.train.max_prompt_length + spec.sample.max_new_tokens


def _room(environment: Mapping[str, str]) -> int | None:
    """GiB of keys and values on a CPU. None: a share of the machine's memory, which vLLM takes where nothing is said."""
    name, otherwise = CPU_KV_CACHE
    text = environment.get(name, otherwise)
    if not text:
        return None
    try:
        room = int(text)
    except ValueError:
        room = 0
    if room < 1:
        raise ConfigurationProblem(
            f"{name} is {text!r} for stage sample, and vLLM, which samples, reads a whole number of GiB there, at least 1. "
            "Write one in sample.pod.env and in evaluate.pod.env, or take it away: then it is 1."
        )
    return room


def _require_room(spec: RLHFRunSpec, attention: _Attention, room: int | None) -> None:
    """vLLM starts with room for one prompt and its longest answer, or not at all."""
    tokens = _longest(spec)
    a_token = 2 * attention.layers * attention.kv_heads * attention.head_size * _BYTES[spec.policy.dtype]
    needed = a_token * tokens / 2**30
    if room is not None and needed > room:
        raise ConfigurationProblem(
            f"On a CPU the sampler keeps keys and values in {room} GiB, and {tokens} tokens of {spec.policy.model.uri} take "
            f"{needed:.1f}. Lower train.maxPromptLength or sample.maxNewTokens, or raise {CPU_KV_CACHE[0]} (GiB) in sample.pod.env "
            "and in evaluate.pod.env."
        )
