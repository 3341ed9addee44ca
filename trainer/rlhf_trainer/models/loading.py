"""Weights from a folder, with every silent failure of loading made loud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rlhf_api.resource.model import Dtype
from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line

from .heads import use_language_head, use_reward_head
from .vocabulary import quiet_transformers

TORCH_DTYPE = {Dtype.BFLOAT16: torch.bfloat16, Dtype.FLOAT32: torch.float32}


def load_causal_lm(folder: Path, dtype: torch.dtype, *, trust_remote_code: bool = False) -> Any:
    """An AutoModelForCausalLM. Raises ConfigurationProblem when weights are missing: they would be random."""
    from transformers import AutoModelForCausalLM

    model = _load(AutoModelForCausalLM, folder, dtype, trust_remote_code=trust_remote_code, may_be_new=())
    use_language_head(model)
    return model


def load_reward_model(folder: Path, dtype: torch.dtype, *, trust_remote_code: bool = False) -> Any:
    """A sequence classifier with one label. Raises ConfigurationProblem when its head, or anything, is newly initialised."""
    from transformers import AutoModelForSequenceClassification

    model = _load(
        AutoModelForSequenceClassification, folder, dtype, trust_remote_code=trust_remote_code, may_be_new=(), num_labels=1
    )
    use_reward_head(model)
    return model


def new_reward_model(folder: Path, dtype: torch.dtype, seed: int, *, trust_remote_code: bool = False) -> Any:
    """A sequence classifier on the trunk of a language model; its head is new, and only its head.

    The head starts at small values drawn from `seed`, as OpenRLHF and InstructGPT's description have it: std 1 / (d + 1).
    """
    from transformers import AutoModelForSequenceClassification

    model = _load(
        AutoModelForSequenceClassification,
        folder,
        dtype,
        trust_remote_code=trust_remote_code,
        may_be_new=("score.weight",),
        num_labels=1,
    )
    use_reward_head(model)
    generator = torch.Generator().manual_seed(seed)
    weight = model.score.weight
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=generator) / (weight.shape[-1] + 1))
    return model


def load_trunk(folder: Path, dtype: torch.dtype) -> Any:
    """A model of transformers without head, by the model_type of config.json; no code that comes with it is run.

    Raises ConfigurationProblem when weights are missing. What else lies in the files is left there.
    """
    from transformers import AutoModel

    with quiet_transformers():
        return _load(AutoModel, folder, dtype, trust_remote_code=False, may_be_new=())


def without_dropout(model: Any) -> Any:
    """The same model, in which training leaves nothing out at random.

    A preference loss compares with log-probs that a reference gave without dropout, and a training that is resumed must go on as
    one that was never stopped. The configuration stays as it is, and is exported so.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)
    return model


def _load(
    auto_class: Any, folder: Path, dtype: torch.dtype, *, trust_remote_code: bool, may_be_new: tuple[str, ...], **options: Any
) -> Any:
    try:
        model, info = auto_class.from_pretrained(
            str(folder),
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            attn_implementation="sdpa",
            use_safetensors=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ConfigurationProblem(
            f"{folder} cannot be loaded as {auto_class.__name__}: {first_line(error)}. Only safetensors weights are read."
        ) from error
    new = sorted(set(info["missing_keys"]) | {key for key, *_ in info.get("mismatched_keys", ())})
    new = [key for key in new if key not in may_be_new]
    if new:
        raise ConfigurationProblem(
            f"{folder} lacks weights that {type(model).__name__} needs ({', '.join(new[:3])}{', …' if len(new) > 3 else ''}): "
            "they would be random. The model is of another class, or incomplete; name one whose head is trained."
        )
    return model.eval()
