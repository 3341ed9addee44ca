"""vLLM's offline engine: ids in, ids and log-probs out. Nothing is appended to what it returns."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlhf_api.resource.model import Dtype
from rlhf_api.resource.sampling import Engine as EngineSpec
from rlhf_trainer.models.stored import stored_shapes
from rlhf_trainer.runtime.environment import prepare_engine_environment
from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line
from rlhf_trainer.runtime.seeds import hashed_seed

from .determinism import require_gpu, require_same, require_settings

#: Prompt tokens that one step reads on a CPU: vLLM's own figure.
_CPU_STEP_TOKENS = 4096
#: Longer prompts are read in parts.
_THRESHOLD = "long_prefill_token_threshold"
#: Characters of what vLLM says: a result has room for some thousand bytes.
_WORDS = 600
#: RuntimeErrors of vLLM that say the same in every attempt.
_LASTING = ("Unsupported CPU attention configuration", "batch_invariant mode is not supported")
#: Of a deterministic engine's trial: requests, and tokens of each.
_TRIAL = (8, 32)
REFUSALS = (ValueError, TypeError, NotImplementedError)
#: What its assertions and arithmetic raise of numbers that do not go together, before a single prompt is there.
WHILE_LOADING = (AssertionError, ArithmeticError, LookupError, AttributeError)


@dataclass(frozen=True)
class Request:
    """`count` completions of one prompt. Temperature 0 is greedy."""

    prompt_ids: Sequence[int]
    count: int
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    seed: int


@dataclass(frozen=True)
class Completion:
    """ids as the engine returned them; logps: nats, of each id under the model at temperature 1; stopped: ended by itself."""

    ids: Sequence[int]
    logps: Sequence[float]
    text: str
    stopped: bool

    @property
    def finish_reason(self) -> str:
        return "stop" if self.stopped else "length"


def request_seed(seed: int, iteration: int, prompt_id: str, entry: str) -> int:
    """Of one prompt under one entry of the mixture, or one decoding."""
    return hashed_seed(seed, iteration, prompt_id, entry)


class SamplingEngine:
    """A model in the engine. Close it before the memory is needed for something else."""

    def __init__(
        self,
        folder: Path,
        tokenizer: Any,
        stop_ids: frozenset[int],
        dtype: Dtype,
        max_length: int,
        spec: EngineSpec,
        *,
        trust_remote_code: bool = False,
        deterministic: bool = False,
    ) -> None:
        """deterministic: in vLLM's batch-invariant mode, which `generate` puts to a trial before anything else.

        Raises ConfigurationProblem.
        """
        import torch

        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._to_try = deterministic
        cpu = not torch.cuda.is_available()
        if deterministic:
            require_gpu(cpu=cpu, capability=None if cpu else torch.cuda.get_device_capability())
        prepare_engine_environment(cpu=cpu, deterministic=deterministic)
        options = engine_options(spec, max_length, os.environ, cpu=cpu)
        if deterministic:
            require_settings(options, os.environ)
        self._longest_prompt = _without_threshold(options) if cpu else None
        stored_shapes(folder, f"The model of {folder}")
        from vllm import LLM

        fixed = {
            "model": str(folder),
            "tokenizer": str(folder),
            "dtype": str(dtype),
            "max_model_len": max_length,
            "disable_log_stats": True,
            "trust_remote_code": trust_remote_code,
            # Log-probs of the model itself, before temperature: what the policy said.
            "logprobs_mode": "raw_logprobs",
            "generation_config": "vllm",
        }
        with refusals(f"the model of {folder} or its engine arguments", REFUSALS + WHILE_LOADING):
            self._llm = LLM(**fixed | options)

    def generate(self, requests: Sequence[Request], batch: int = 512) -> Iterator[list[Completion]]:
        """The completions of each request, in order. `batch` requests are in flight at a time, so that progress can be told.

        Raises ConfigurationProblem for an engine that is to be deterministic and is not.
        """
        self._require_whole_prompts(requests)
        if self._to_try:
            self._to_try = False
            self._try(requests)
        yield from self._answers(requests, batch)

    def _try(self, requests: Sequence[Request]) -> None:
        """A few of the requests, one at a time and together: what ignores the mode does not say so."""
        count, tokens = _TRIAL
        trial = [replace(request, count=1, max_new_tokens=min(tokens, request.max_new_tokens)) for request in requests[:count]]
        require_same(*([found for (found,) in self._answers(trial, batch)] for batch in (1, max(1, len(trial)))))

    def _answers(self, requests: Sequence[Request], batch: int) -> Iterator[list[Completion]]:
        from vllm import SamplingParams, TokensPrompt

        for start in range(0, len(requests), batch):
            part = requests[start : start + batch]
            prompts = [TokensPrompt(prompt_token_ids=list(request.prompt_ids)) for request in part]
            parameters = [
                SamplingParams(
                    n=request.count,
                    temperature=request.temperature,
                    top_p=request.top_p if request.temperature > 0 else 1.0,
                    top_k=request.top_k if request.temperature > 0 else 0,
                    max_tokens=request.max_new_tokens,
                    seed=request.seed,
                    logprobs=0,
                    detokenize=False,
                    stop_token_ids=sorted(self._stop_ids),
                    ignore_eos=True,
                )
                for request in part
            ]
            with refusals("to answer these prompts"):
                outputs = self._llm.generate(prompts, parameters, use_tqdm=False)
            for output in outputs:
                yield [self._completion(item) for item in sorted(output.outputs, key=lambda item: item.index)]

    def close(self) -> None:
        """Give the engine's memory back."""
        import torch

        del self._llm
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _require_whole_prompts(self, requests: Sequence[Request]) -> None:
        longest = max((len(request.prompt_ids) for request in requests), default=0)
        if self._longest_prompt is not None and longest > self._longest_prompt:
            raise _split("--long-prefill-token-threshold", f", and the longest has {longest} tokens")

    def _completion(self, output: Any) -> Completion:
        ids = [int(token) for token in output.token_ids]
        logps = [entry[token].logprob for token, entry in zip(ids, output.logprobs, strict=True)]
        stopped = bool(ids) and ids[-1] in self._stop_ids
        text = self._tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
        return Completion(ids, logps, text, stopped)


def engine_options(spec: EngineSpec, max_length: int, environment: Mapping[str, str], *, cpu: bool) -> dict[str, Any]:
    """vLLM's arguments by the manifest's engine. Raises ConfigurationProblem for one that cannot be read, or that no CPU can have.

    `max_length`: tokens of the longest prompt and its longest answer. `environment`: of the process that samples.
    """
    extra = _extra_arguments(spec.extra_args)
    if not cpu:
        own = {"tensor_parallel_size": spec.tensor_parallel_size, "gpu_memory_utilization": spec.gpu_memory_utilization}
        return {**own, "enforce_eager": False, **extra}
    if extra.get("enable_chunked_prefill"):
        raise _split("--enable-chunked-prefill")
    if not extra.get("enforce_eager", True) and environment.get("TORCHDYNAMO_DISABLE") == "1":
        raise ConfigurationProblem(
            "sample.engine.extraArgs has --enforce-eager=false: on a CPU nothing is compiled, for that would need a compiler. "
            "Remove it."
        )
    # One process has all cores: vLLM would want a NUMA node for each part of the model, and there are no GPUs to hold them.
    # So that no prompt is read in parts a step has room for the longest, and what does not fit into one waits for the next.
    own = {"tensor_parallel_size": 1, "enable_chunked_prefill": False, "max_num_batched_tokens": max(_CPU_STEP_TOKENS, max_length)}
    return {**own, "enforce_eager": True, **extra}


def _without_threshold(options: dict[str, Any]) -> int | None:
    """Takes it out of `options`: tokens of the longest prompt that is read at once. None: any is.

    vLLM would compare it also with prompt and answer, where it reads these again after a lack of room. What it refuses stays.
    """
    threshold = options.get(_THRESHOLD)
    return options.pop(_THRESHOLD) if isinstance(threshold, int) and threshold > 0 else None


def _split(option: str, because: str = "") -> ConfigurationProblem:
    """vLLM samples after every step, also in the midst of a prompt, and then winds the request's generator back.

    torch cannot do that with a CPU's.
    """
    return ConfigurationProblem(
        f"sample.engine.extraArgs has {option}: on a CPU vLLM cannot read a seeded prompt in parts{because}. Remove it."
    )


@contextmanager
def refusals(what: str, kinds: tuple[type[Exception], ...] = REFUSALS) -> Iterator[None]:
    """What vLLM refuses, and would refuse in every attempt, is a ConfigurationProblem in its own words."""
    try:
        yield
    except kinds as error:
        raise _refused(what, error) from error
    except RuntimeError as error:
        if any(words in str(error) for words in _LASTING):
            raise _refused(what, error) from error
        raise


def _refused(what: str, error: Exception) -> ConfigurationProblem:
    if isinstance(error, ValidationError):
        # Its own first line only says how many there are.
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        text = f"{place}: {first['msg']}" if place else first["msg"].removeprefix("Value error, ")
    elif isinstance(error, WHILE_LOADING):
        # It may say little more than where it stands.
        text = first_line(error, "") or traceback.extract_tb(error.__traceback__)[-1].line or "no message"
        text = f"{type(error).__name__}: {text}"
    else:
        text = first_line(error)
    # It may list every model class that there is.
    text = text.partition(" Supported architectures:")[0]
    return ConfigurationProblem(f"vLLM refuses {what}: {text[:_WORDS]}")


def _extra_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """--max-num-seqs=64 → {"max_num_seqs": 64}; values are read as YAML."""
    import yaml

    found: dict[str, Any] = {}
    for argument in arguments:
        name, separator, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not name:
            raise ConfigurationProblem(
                f"sample.engine.extraArgs has {argument!r}; expected --name=value, as `vllm serve` spells it."
            )
        try:
            found[name.replace("-", "_")] = yaml.safe_load(value) if separator else True
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigurationProblem(
                f"sample.engine.extraArgs has {argument!r}, whose value is no YAML: {first_line(error)}. Write a number, true, "
                "false or text there, or JSON."
            ) from error
    return found
