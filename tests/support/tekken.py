"""Mistral's Tekken, of 131,072 tokens, as a tokenizer of Hugging Face's; it comes with mistral_common, which vLLM needs."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import mistral_common
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from support.byte_pairs import byte_pair_tokenizer

FILE = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
#: Of Mistral-Nemo-Instruct-2407, without its tools.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST]{{ message['content'] }}[/INST]"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


def tekken() -> Any:
    """A PreTrainedTokenizerFast; it takes some seconds."""
    from transformers import PreTrainedTokenizerFast

    raw = json.loads(FILE.read_text(encoding="utf-8"))
    config = raw["config"]
    controls = int(config["default_num_special_tokens"])
    size = int(config["default_vocab_size"]) - controls
    ids = {base64.b64decode(entry["token_bytes"]): int(entry["rank"]) + controls for entry in raw["vocab"][:size]}
    names = [str(token["token_str"]) for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    names += [f"<SPECIAL_{number}>" for number in range(len(names), controls)]
    found = byte_pair_tokenizer(ids, {name: number for number, name in enumerate(names)}, config["pattern"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=found, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
