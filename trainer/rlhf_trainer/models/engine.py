"""vLLM's offline engine: ids in, ids and log-probs out. Nothing is appended to what it returns."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlhf_api.resource.model import Dtype
from rlhf_api.resource.sampling import Engine as EngineSpec
from rlhf_trainer.runtime.environment import prepare_cpu_environment
from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line
from rlhf_trainer.runtime.seeds import hashed_seed

#: Prompt tokens that one step reads on a CPU: vLLM's own figure.
_CPU_STEP_TOKENS = 4096
#: By these, too, a prompt is read in parts.
_SPLITTING = ("enable_chunked_prefill", "long_prefill_token_threshold")
#: Characters of what vLLM says: a result has room for some thousand bytes.
_WORDS = 600
#: RuntimeErrors of vLLM that say the same in every attempt.
_LASTING = ("Unsupported CPU attention configuration",)


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
    ) -> None:
        import torch

        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        cpu = not torch.cuda.is_available()
        if cpu:
            prepare_cpu_environment()
        else:
            # torch was asked for a GPU in this process: a fork of it cannot use one.
            os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        from vllm import LLM

        options: dict[str, Any] = {
            "model": str(folder),
            "tokenizer": str(folder),
            "dtype": str(dtype),
            "max_model_len": max_length,
            "tensor_parallel_size": spec.tensor_parallel_size,
            "enforce_eager": cpu,
            "disable_log_stats": True,
            "trust_remote_code": trust_remote_code,
            # Log-probs of the model itself, before temperature: what the policy said.
            "logprobs_mode": "raw_logprobs",
            "generation_config": "vllm",
        }
        extra = _extra_arguments(spec.extra_args)
        if cpu:
            options |= _one_step_a_prompt(extra, max_length)
        else:
            options["gpu_memory_utilization"] = spec.gpu_memory_utilization
        with _refusals(f"the model of {folder} or its engine arguments"):
            self._llm = LLM(**options | extra)

    def generate(self, requests: Sequence[Request], batch: int = 512) -> Iterator[list[Completion]]:
        """The completions of each request, in order. `batch` requests are in flight at a time, so that progress can be told."""
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
            with _refusals("to answer these prompts"):
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

    def _completion(self, output: Any) -> Completion:
        ids = [int(token) for token in output.token_ids]
        logps = [entry[token].logprob for token, entry in zip(ids, output.logprobs, strict=True)]
        stopped = bool(ids) and ids[-1] in self._stop_ids
        text = self._tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
        return Completion(ids, logps, text, stopped)


def _one_step_a_prompt(extra: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """Engine arguments by which no prompt is read in parts.

    vLLM samples after every step, also in the midst of a prompt, and then winds the request's generator back: torch cannot do that
    with a CPU's. So a step has room for the longest prompt, and what does not fit into one waits for the next.
    """
    for name in _SPLITTING:
        if extra.get(name):
            option = f"--{name.replace('_', '-')}"
            raise ConfigurationProblem(
                f"sample.engine.extraArgs has {option}: on a CPU vLLM cannot read a seeded prompt in parts. Remove it."
            )
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": max(_CPU_STEP_TOKENS, max_length)}


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """What vLLM refuses, and would refuse in every attempt, is a ConfigurationProblem in its own words."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _refused(what, error) from error
    except RuntimeError as error:
        if any(words in str(error) for words in _LASTING):
            raise _refused(what, error) from error
        raise


def _refused(what: str, error: Exception) -> ConfigurationProblem:
    # A pydantic error's own first line only says how many there are.
    text = error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else first_line(error)
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
        found[name.replace("-", "_")] = yaml.safe_load(value) if separator else True
    return found
