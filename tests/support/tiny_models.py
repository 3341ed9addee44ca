"""Models that load in a second: a Llama with random weights, and the tokenizer of the quickstart's world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlhf_trainer.data.examples import Example

VOCABULARY = 61
#: Of the configuration of any model with attention.
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


def save_tiny_llama(
    folder: Path, *, tied: bool = False, seed: int = 0, vocabulary: int = VOCABULARY, head_dim: int | None = None
) -> Path:
    """A LlamaForCausalLM with two layers in fp32, without a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        **SIZES,
        head_dim=head_dim,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))
    return folder


def save_preference_model(folder: Path) -> Path:
    """A language model with an opinion, whose tokenizer has Llama 3's control tokens and template."""
    from .vocabularies import LLAMA3, template, tokenizer

    own = tokenizer(LLAMA3, template("llama3"), bos=LLAMA3[0], eos=LLAMA3[4])
    save_tiny_llama(folder, vocabulary=len(own), seed=3)
    own.save_pretrained(str(folder))
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 512}))
    return folder


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), dtype="float32").eval()


def random_pairs(count: int, *, seed: int = 0, longest: int = 12, reference: bool = True) -> list[Example]:
    """Prompts with a chosen and a rejected completion of random ids and lengths."""
    import random

    rng = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(low, high))]

    return [
        Example(
            ids(2, longest),
            [ids(1, longest), ids(1, longest)],
            None,
            reference=(rng.uniform(-40, -20), rng.uniform(-40, -20)) if reference else (),
        )
        for _ in range(count)
    ]
