"""Mistral's Tekken, of 131,072 tokens, as a tokenizer of Hugging Face's; it comes with mistral_common, which vLLM needs."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import mistral_common
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

FILE = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
#: Of Mistral-Nemo-Instruct-2407, without its tools.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST]{{ message['content'] }}[/INST]"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


def tekken() -> Any:
    """A PreTrainedTokenizerFast; it takes some seconds. Merges are found as tiktoken finds them: by the rank of what they make."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    raw = json.loads(FILE.read_text(encoding="utf-8"))
    config = raw["config"]
    controls = int(config["default_num_special_tokens"])
    size = int(config["default_vocab_size"]) - controls
    ranks = {base64.b64decode(entry["token_bytes"]): int(entry["rank"]) for entry in raw["vocab"][:size]}
    letters = bytes_to_unicode()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    names = [str(token["token_str"]) for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    names += [f"<SPECIAL_{number}>" for number in range(len(names), controls)]
    vocabulary = {name: number for number, name in enumerate(names)} | {
        spelled(token): rank + controls for token, rank in ranks.items()
    }
    merges = [(spelled(left), spelled(right)) for left, right in _merges(ranks)]
    found = Tokenizer(models.BPE(vocabulary, merges))
    split = pre_tokenizers.Split(Regex(config["pattern"]), "isolated")
    found.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    found.decoder = decoders.ByteLevel()
    found.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=found, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    found: list[tuple[int, int, int, bytes, bytes]] = []
    for token, rank in ranks.items():
        halves = ((token[:place], token[place:]) for place in range(1, len(token)))
        found += [(rank, ranks[left], ranks[right], left, right) for left, right in halves if left in ranks and right in ranks]
    return [(left, right) for *_, left, right in sorted(found)]
