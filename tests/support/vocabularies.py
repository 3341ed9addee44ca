"""Small tokenizers with the control tokens and templates of real families: every text has ids, each control token is one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rlhf_trainer.models.chat import Chat, added_ids
from rlhf_trainer.models.ends import stop_token_ids
from rlhf_trainer.models.templates import DATE
from rlhf_trainer.models.vocabulary import Vocabulary

LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
GEMMA = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
#: How Llama 3 and Qwen split text: line breaks stay together.
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CORPUS = ["What is the capital of France? Paris is the capital of France.\n\n", "user assistant system\n", "0 1 2 3 + =\n\n"] * 4


def template(name: str) -> str:
    """A chat template as its makers publish it, from the copies that trl ships."""
    return (_shipped() / f"{name}.jinja").read_text()


def templates() -> set[str]:
    """The names of those."""
    return {file.stem for file in _shipped().glob("*.jinja")}


def tokenizer(
    controls: Sequence[str],
    chat: str,
    *,
    bos: str | None = None,
    eos: str | None = None,
    plain: Sequence[str] = (),
    adds_bos: bool = False,
) -> Any:
    """A byte-level BPE. plain: tokens of their own that control nothing, as <think> is. adds_bos: in front of every text."""
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    raw = _trained(tuple(controls))
    raw.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    if adds_bos:
        raw.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))])
    others = [token for token in controls if token not in (bos, eos)]
    found = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=bos, eos_token=eos, additional_special_tokens=others)
    found.chat_template = chat
    return found


def vocabulary(found: Any, *, stops: Sequence[int] | None = None, classifier: bool = False) -> Vocabulary:
    ids = stop_token_ids(found, None, []) if stops is None else stops
    return Vocabulary(found, frozenset(ids), Chat(found, DATE, *(added_ids(found) if classifier else ())))


def _shipped() -> Path:
    import trl

    return Path(trl.__file__).parent / "chat_templates"


def _trained(controls: tuple[str, ...]) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(_serialised(controls))


@cache
def _serialised(controls: tuple[str, ...]) -> str:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=list(controls), initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(_CORPUS, trainer)
    return str(raw.to_str())
