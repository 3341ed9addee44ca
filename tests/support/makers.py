"""Llama 3's and 4's and Qwen's tokenizers as their makers publish them: as a vocabulary of ours, and as what they render with.

The files come with packages of theirs (published.py). What Hugging Face serves of these models is made of the same ranks.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from rlhf_trainer.data.messages import Message
from rlhf_trainer.models.vocabulary import Vocabulary
from support.byte_pairs import byte_pair_tokenizer, read_ranks
from support.published import DASHSCOPE, LLAMA_MODELS, folder, imported
from support.vocabularies import template, vocabulary

#: What the template of Llama 3.1 writes in front of what the system says, on the day that it falls back on.
LLAMA3_1_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
#: What the template of Qwen 2.5 has the system say where nobody else does.
QWEN2_5_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@dataclass(frozen=True)
class Maker:
    """asked: ids of a conversation and of the header of an answer to it; header: how many the latter are; end: closes an answer."""

    ours: Vocabulary
    asked: Callable[[Sequence[Message]], list[int]]
    header: int
    end: int

    def said(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation whose last answer is there."""
        return self.asked(messages)[: -self.header]

    def counted(self, messages: Sequence[Message]) -> list[bool]:
        """Which of the ids of `said` are what the assistant says, or its end."""
        found = [False] * len(self.said(messages))
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                first, behind = len(self.asked(messages[:number])), len(self.said(messages[: number + 1]))
                behind -= self.said(messages[: number + 1])[::-1].index(self.end)
                found[first:behind] = [True] * (behind - first)
        return found


def llama3() -> Maker:
    """By Meta's ChatFormat. It takes a content as it is, where their template strips it: it is handed what is left."""
    return Maker(_llama("llama3"), lambda messages: _by_meta(_stripped(messages)), _llama_header(), _meta().tokenizer.eot_id)


def llama3_1() -> Maker:
    """The same, where a conversation begins with what the system says, if only the dates."""

    def asked(messages: Sequence[Message]) -> list[int]:
        stripped = _stripped(messages)
        system, rest = (stripped[0]["content"], stripped[1:]) if messages[0]["role"] == "system" else ("", stripped)
        return _by_meta([{"role": "system", "content": LLAMA3_1_DATES + system}, *rest])

    return Maker(_llama("llama3_1"), asked, _llama_header(), _meta().tokenizer.eot_id)


def llama4() -> Maker:
    """The same, of Llama 4. A turn that begins with a line break is encoded whole, as their template has it: the two breaks behind
    its header are one token with it. Of the system's words alone their template strips the ends.
    """
    theirs = _meta4()

    def asked(messages: Sequence[Message]) -> list[int]:
        first = _stripped(messages[:1]) if messages and messages[0]["role"] == "system" else messages[:1]
        ids = list(theirs.encode_dialog_prompt([]).tokens)
        begin, header = ids[:1], ids[1:]
        return [*begin, *(token for message in (*first, *messages[1:]) for token in _turn4(message)), *header]

    return Maker(_llama("llama4"), asked, len(theirs.encode_dialog_prompt([]).tokens) - 1, theirs.tokenizer.eot_id)


def qwen2_5() -> Maker:
    """ChatML by hand. A turn is encoded whole, with the line break behind its role, as their template has it."""

    def asked(messages: Sequence[Message]) -> list[int]:
        before = [] if messages[0]["role"] == "system" else [{"role": "system", "content": QWEN2_5_SYSTEM}]
        return _chat_ml([*before, *messages])

    return Maker(_qwen("qwen2_5"), asked, len(_chat_ml([])), _qwen_tokenizer().im_end_id)


def qwen3() -> Maker:
    """Of Qwen3-Instruct-2507: it neither reasons nor has words of its own for the system."""
    return Maker(_qwen("qwen3_instruct_2507"), _chat_ml, len(_chat_ml([])), _qwen_tokenizer().im_end_id)


@cache
def _meta() -> Any:
    package = folder(LLAMA_MODELS) / "llama_models"
    tokenizer = imported(package, "llama3.tokenizer").Tokenizer(package / "llama3" / "tokenizer.model")
    return imported(package, "llama3.chat_format").ChatFormat(tokenizer)


@cache
def _meta4() -> Any:
    """Its text alone: what it makes of pictures needs torchvision, which nobody has here."""
    package = folder(LLAMA_MODELS) / "llama_models"
    tokenizer = imported(package, "llama4.tokenizer").Tokenizer(package / "llama4" / "tokenizer.model")
    pictures = ModuleType(f"{imported(package, 'llama4').__name__}.preprocess")
    pictures.__dict__.update(ResizeNormalizeImageTransform=None, VariableSizeImageTransform=None)
    sys.modules.setdefault(pictures.__name__, pictures)
    return imported(package, "llama4.chat_format").ChatFormat(tokenizer)


def _turn4(message: Message) -> list[int]:
    package, theirs = folder(LLAMA_MODELS) / "llama_models", _meta4()
    formats, message_of = imported(package, "datatypes").ToolPromptFormat, imported(package, "datatypes").RawMessage
    if not re.match(r"\s*[\r\n]", message["content"]):
        return list(theirs.encode_message(message_of(**message), formats.json)[0])
    header = theirs.encode_message(message_of(role=message["role"], content=""), formats.json)[0]
    place = header.index(theirs.tokenizer.special_tokens["<|header_end|>"]) + 1
    return [*header[:place], *theirs.tokenizer.encode(f"\n\n{message['content']}", bos=False, eos=False), header[-1]]


def _llama4_template() -> str:
    """As transformers ships it, in a module that is not imported for it: that takes longer than all else here."""
    import transformers

    file = Path(transformers.__file__).parent / "models" / "llama4" / "processing_llama4.py"
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "chat_template":
            return str(ast.literal_eval(node.value))
    raise AssertionError(f"{file} has no chat_template")


def _stripped(messages: Sequence[Message]) -> list[Message]:
    return [{**message, "content": message["content"].strip()} for message in messages]


def _by_meta(messages: Sequence[Message]) -> list[int]:
    message_of = imported(folder(LLAMA_MODELS) / "llama_models", "datatypes").RawMessage
    return list(_meta().encode_dialog_prompt([message_of(**message) for message in messages]).tokens)


def _llama_header() -> int:
    return len(_by_meta([])) - 1


@cache
def _llama_tokenizer(generation: int) -> Any:
    from transformers import PreTrainedTokenizerFast

    theirs = (_meta() if generation == 3 else _meta4()).tokenizer
    ranks = read_ranks(folder(LLAMA_MODELS) / "llama_models" / f"llama{generation}" / "tokenizer.model")
    found = byte_pair_tokenizer(ranks, theirs.special_tokens, theirs.pat_str if generation == 3 else theirs.O200K_PATTERN)
    end = "<|eot_id|>" if generation == 3 else "<|eot|>"
    return PreTrainedTokenizerFast(tokenizer_object=found, bos_token="<|begin_of_text|>", eos_token=end)


def _llama(name: str) -> Vocabulary:
    tokenizer = copy(_llama_tokenizer(4 if name == "llama4" else 3))
    tokenizer.chat_template = _llama4_template() if name == "llama4" else template(name)
    return vocabulary(tokenizer)


@cache
def _qwen_tokenizer() -> Any:
    package = folder(DASHSCOPE) / "dashscope"
    return imported(package / "tokenizers", "qwen_tokenizer").QwenTokenizer(str(package / "resources" / "qwen.tiktoken"))


def _chat_ml(messages: Sequence[Message]) -> list[int]:
    theirs = _qwen_tokenizer()

    def text(said: str) -> list[int]:
        # Unless it is told, it takes what people write for its control tokens.
        return list(theirs.encode(said, allowed_special=set()))

    ids: list[int] = []
    for message in messages:
        ids += [theirs.im_start_id, *text(f"{message['role']}\n{message['content']}"), theirs.im_end_id, *text("\n")]
    return [*ids, theirs.im_start_id, *text("assistant\n")]


@cache
def _fast_qwen() -> Any:
    """Text is composed first (NFC), as their tokenizer does."""
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast

    package = folder(DASHSCOPE) / "dashscope"
    module = imported(package / "tokenizers", "qwen_tokenizer")
    controls = {token: number for number, token in module.SPECIAL_TOKENS}
    ranks = read_ranks(package / "resources" / "qwen.tiktoken")
    found = byte_pair_tokenizer(ranks, controls, module.PAT_STR, normalizer=normalizers.NFC())
    return PreTrainedTokenizerFast(tokenizer_object=found, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _qwen(name: str) -> Vocabulary:
    tokenizer = copy(_fast_qwen())
    tokenizer.chat_template = template(name)
    return vocabulary(tokenizer)
