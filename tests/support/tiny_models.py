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


def save_tiny_mistral(folder: Path, *, window: int, seed: int = 0) -> Path:
    """A MistralForCausalLM whose layers see the last `window` tokens alone, in fp32, without a tokenizer."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(seed)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = MistralConfig(vocab_size=VOCABULARY, sliding_window=window, max_position_embeddings=128, **SIZES, **ends)
    MistralForCausalLM(config).save_pretrained(folder)
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


#: What the model of `save_decided_judge` answers to everything.
DECIDED = "[[A]]"


def save_decided_judge(folder: Path, says: str = DECIDED) -> Path:
    """A chat model that `says` the same of everything, one token, and ends: its layers add nothing: a token decides the next."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from .vocabularies import LLAMA3, template, tokenizer

    own = tokenizer(LLAMA3, template("llama3"), bos=LLAMA3[0], eos=LLAMA3[4], plain=[says])
    own.save_pretrained(str(folder))
    said, end = own.convert_tokens_to_ids([says, LLAMA3[4]])
    ends = {"bos_token_id": own.bos_token_id, "eos_token_id": end, "pad_token_id": None}
    # vLLM has no kernel of a CPU for smaller heads.
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(own), **SIZES, head_dim=32, max_position_embeddings=4096, **ends))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedded, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedded.zero_()
        head.zero_()
        embedded[:, 0] = 1
        embedded[said, 0], embedded[said, 1] = 0, 1
        head[said, 0] = head[end, 1] = 10
    model.save_pretrained(str(folder))
    return folder


def save_opinionated_judge(folder: Path) -> Path:
    """A chat model that says [[A]], [[B]] or [[C]], each a token, and ends; which, depends on all that it is asked."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from .vocabularies import LLAMA3, template, tokenizer

    verdicts = ["[[A]]", "[[B]]", "[[C]]"]
    own = tokenizer(LLAMA3, template("llama3"), bos=LLAMA3[0], eos=LLAMA3[4], plain=verdicts)
    own.save_pretrained(str(folder))
    said, end = own.convert_tokens_to_ids(verdicts), own.eos_token_id
    ends = {"bos_token_id": own.bos_token_id, "eos_token_id": end, "pad_token_id": None}
    torch.manual_seed(5)
    # vLLM has no kernel of a CPU for smaller heads.
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(own), **SIZES, head_dim=32, max_position_embeddings=4096, **ends))
    with torch.no_grad():
        # In the first two places stands what a token is: one to answer behind, or an answer; layers leave them.
        for layer in model.model.layers:
            for reader in (layer.self_attn.v_proj, layer.mlp.gate_proj, layer.mlp.up_proj):
                reader.weight[:, :2] = 0
            layer.self_attn.o_proj.weight.mul_(10)
            layer.self_attn.o_proj.weight[:2] = 0
            layer.mlp.down_proj.weight[:2] = 0
        embedded, head = model.model.embed_tokens.weight, model.lm_head.weight
        opinions = head[said].clone()
        head.zero_()
        head[said] = 10 * opinions
        embedded[:, 0], embedded[:, 1] = 4, 0
        head[said, 0], head[said, 1] = 200, 0
        embedded[said, 0], embedded[said, 1] = 0, 8
        head[end, 1] = 1000
        # Behind the header nothing speaks for a verdict but what the layers have read.
        header = own.apply_chat_template([{"role": "user", "content": "?"}], add_generation_prompt=True, return_dict=False)[-1]
        embedded[header, 2:] = 0
    model.save_pretrained(str(folder))
    return folder


#: The gate of `save_gated_model`, as its config.json has it. At a lower temperature than published it has an opinion.
GATED: dict[str, Any] = {"num_objectives": 19, "gating_temperature": 0.5, "gating_hidden_dim": 24, "gating_n_hidden": 3}


def save_gated_model(folder: Path, *, seed: int = 4, **gate: Any) -> Path:
    """A multi-objective reward model with files as RLHFlow/ArmoRM-Llama3-8B-v0.1 has: in shards, and with code that is not run."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaModel

    from .vocabularies import LLAMA3, template, tokenizer

    own = tokenizer((*LLAMA3, "[PAD]"), template("llama3"), bos=LLAMA3[0], eos=LLAMA3[4], adds_bos=True)
    own.pad_token = "[PAD]"
    own.save_pretrained(str(folder))
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=len(own), **SIZES, max_position_embeddings=512, pad_token_id=own.pad_token_id, **GATED | gate)
    config.architectures = ["LlamaForRewardModelWithGating"]
    config.save_pretrained(str(folder))
    code = {"AutoModelForSequenceClassification": "modeling_custom.LlamaForRewardModelWithGating"}
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": code}))
    (folder / "modeling_custom.py").write_text("raise RuntimeError('this code must not be run')\n")
    trunk = {f"model.{name}": weight.contiguous() for name, weight in LlamaModel(config).state_dict().items()}
    shards = {"model-00001-of-00002.safetensors": trunk, "model-00002-of-00002.safetensors": _gated_heads(config)}
    for name, weights in shards.items():
        save_file(weights, folder / name, metadata={"format": "pt"})
    places = {name: shard for shard, weights in shards.items() for name in weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def _gated_heads(config: Any) -> dict[str, Any]:
    import torch

    objectives, widths = config.num_objectives, [config.hidden_size, *[config.gating_hidden_dim] * config.gating_n_hidden]
    layers = zip(widths, [*widths[1:], objectives], strict=True)
    found = {
        "regression_layer.weight": torch.randn(objectives, config.hidden_size),
        "reward_transform_matrix": torch.eye(objectives) - 0.3 * torch.rand(objectives, objectives),
        "gating.logit_scale": torch.tensor([1.7]),
    }
    for number, (inputs, outputs) in enumerate(layers):
        found[f"gating.layers.{number}.weight"] = torch.randn(outputs, inputs) * inputs**-0.5 * 1.5
        found[f"gating.layers.{number}.bias"] = torch.randn(outputs) * 0.1
    return found


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
