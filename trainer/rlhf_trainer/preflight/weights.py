"""Weights are what they must be: plain, whole, of the class that config.json names. From config.json and the headers alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlhf_api.resource.model import ModelRef
from rlhf_trainer.labelers.gated.format import ARCHITECTURE, GatedShape
from rlhf_trainer.models.stored import FileVersion, Shape, require_shapes, stored_shapes
from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line

from .configuration import architectures_of, read_config, transformers_config

_ADAPTER = "adapter_config.json"
#: How models call the table of their tokens' vectors.
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
#: Older files hold it, and it is computed anew.
_COMPUTED = "rotary_emb.inv_freq"
_OTHER_TYPE = " As reward or judge it is of type MultiObjective."
_CLASSIFIER = "AutoModelForSequenceClassification"


@dataclass(frozen=True)
class _Skeleton:
    """A model by its config.json: shapes by name, and how the names of its trunk begin."""

    shapes: Mapping[str, Shape]
    trunk: str


def require_architecture(folder: Path, model: ModelRef, *suffixes: str) -> None:
    """The class that config.json names ends so, and its weights are plain safetensors of that class."""
    _require_no_adapter(folder, model)
    config = read_config(folder, model)
    architectures = architectures_of(folder, model)
    if not any(name.endswith(suffixes) for name in architectures):
        raise ConfigurationProblem(
            f"{model.uri} is {', '.join(architectures) or 'of no known architecture'}; a …{' or …'.join(suffixes)} is "
            f"needed here, for the missing head would be random.{_OTHER_TYPE if ARCHITECTURE in architectures else ''}"
        )
    quantised = config.get("quantization_config") or config.get("compression_config")
    if quantised:
        method = quantised.get("quant_method") if isinstance(quantised, Mapping) else None
        raise ConfigurationProblem(
            f"{model.uri} is quantised ({method or 'config.json has a quantization_config'}). What is trained, scored or compared "
            "here are plain weights: name the model that it was made from."
        )
    _require_class(folder, model, architectures[0])


def require_head(folder: Path, model: ModelRef) -> None:
    """The head of a reward model is in the files, and gives one score; transformers makes up one that is not, and only warns."""
    stored = stored_shapes(folder, model.uri)
    expected = _expected(folder, model, _CLASSIFIER)
    head = {name: shape for name, shape in expected.shapes.items() if not name.startswith(expected.trunk)}
    if missing := sorted(head.keys() - stored.keys()):
        raise ConfigurationProblem(
            f"{model.uri} has no weights for its head ({', '.join(missing)}): it would be random. Name a trained reward model."
        )
    for name, shape in head.items():
        if stored[name] != shape:
            raise ConfigurationProblem(
                f"{model.uri} has a head of {stored[name][0]} outputs ({name}), and a reward is one. It is a classifier, or has "
                "several objectives: name a model with one score."
            )


def require_gated(folder: Path, model: ModelRef) -> None:
    """A Llama with several rewards and a gate: all its weights are there, and none that its formula does not know."""
    _require_no_adapter(folder, model)
    if architectures_of(folder, model) != [ARCHITECTURE]:
        named = ", ".join(architectures_of(folder, model)) or "of no known architecture"
        raise ConfigurationProblem(
            f"{model.uri} is {named}; type MultiObjective is for models published as {ARCHITECTURE}, such as "
            "RLHFlow/ArmoRM-Llama3-8B-v0.1. A model with one score is of type BradleyTerry."
        )
    heads = GatedShape.of(read_config(folder, model), model.uri).tensors
    require_architecture(folder, model, ARCHITECTURE)
    stored, expected = stored_shapes(folder, model.uri), _expected(folder, model, _CLASSIFIER)
    trunk = {name: shape for name, shape in expected.shapes.items() if name.startswith(expected.trunk)}
    known = trunk | heads
    require_shapes(stored, known, model.uri)
    if unknown := sorted(name for name in stored.keys() - known.keys() if not name.endswith(_COMPUTED)):
        raise ConfigurationProblem(
            f"{model.uri} has weights that {ARCHITECTURE} does not know by its config.json ({', '.join(unknown[:3])}): it computes "
            "something else than this version would. Name a model that is published as ArmoRM is."
        )


def require_ids_within(folder: Path, model: ModelRef, tokenizer: Any) -> None:
    """Each token of the tokenizer has a vector in the model."""
    rows = next((shape[0] for name, shape in stored_shapes(folder, model.uri).items() if name.endswith(_EMBEDDINGS)), None)
    beyond = sorted((token, text) for text, token in tokenizer.get_vocab().items() if rows is not None and token >= rows)
    if beyond:
        token, text = beyond[0]
        raise ConfigurationProblem(
            f"{model.uri} has vectors for {rows} tokens, and its tokenizer has {len(beyond)} more, the first {text!r} ({token}). "
            "Tokens were added and the model was not resized: name both as they were trained."
        )


def _require_no_adapter(folder: Path, model: ModelRef) -> None:
    if not (folder / _ADAPTER).exists():
        return
    try:
        adapter = json.loads((folder / _ADAPTER).read_text(encoding="utf-8"))
        base = adapter.get("base_model_name_or_path") if isinstance(adapter, dict) else None
    except (OSError, ValueError):
        base = None
    if (folder / "config.json").exists():
        raise ConfigurationProblem(
            f"{model.uri} has an adapter ({_ADAPTER}) beside a whole model: some tools would put it on top, others not. Name a "
            "folder without it, with the weights that you mean."
        )
    raise ConfigurationProblem(
        f"{model.uri} is an adapter{f' of {base}' if base else ''}, not a model. Merge it into its base (PEFT: merge_and_unload), "
        "and name what comes out."
    )


def _require_class(folder: Path, model: ModelRef, architecture: str) -> None:
    """Something of the class is there, and what is there has its shape."""
    kind = "AutoModelForCausalLM" if architecture.endswith("ForCausalLM") else _CLASSIFIER
    stored, expected = stored_shapes(folder, model.uri), _expected(folder, model, kind)
    first = min(stored, default="nothing")
    # A trunk that was saved by itself has names without its prefix; transformers puts that before them.
    stored = {name if name in expected.shapes else f"{expected.trunk}{name}": shape for name, shape in stored.items()}
    common = stored.keys() & expected.shapes.keys()
    if not common:
        raise ConfigurationProblem(
            f"{model.uri} has weights of another class than {architecture}, which config.json names: none has a name that it knows "
            f"(the first is {first}). Name a folder whose files belong together."
        )
    for name in sorted(name for name in common if name.startswith(expected.trunk)):
        if stored[name] != expected.shapes[name]:
            raise ConfigurationProblem(
                f"{model.uri}: {name} is {list(stored[name])} in its files, and {list(expected.shapes[name])} by its config.json. "
                "Name a folder whose files belong together."
            )


def _expected(folder: Path, model: ModelRef, kind: str) -> _Skeleton:
    # It says why it cannot be read.
    read_config(folder, model)
    return _skeleton(FileVersion.of(folder / "config.json"), model, kind)


@lru_cache(maxsize=16)
def _skeleton(config_file: FileVersion, model: ModelRef, kind: str) -> _Skeleton:
    """Nothing is allocated. Several checks ask for the same, and of a large model it takes seconds."""
    import torch
    import transformers

    # A reward is one score, whatever its config.json says; of a classifier's trunk that changes nothing.
    config = transformers_config(config_file.path.parent, model, **({"num_labels": 1} if kind == _CLASSIFIER else {}))
    try:
        with torch.device("meta"):
            empty = getattr(transformers, kind).from_config(config, trust_remote_code=model.trust_remote_code)
    # Numbers that do not go together make it raise anything.
    except Exception as error:
        raise ConfigurationProblem(f"{model.uri}: transformers makes no model of its config.json: {first_line(error)}") from error
    shapes = {name: tuple(parameter.shape) for name, parameter in empty.named_parameters()}
    return _Skeleton(shapes, f"{empty.base_model_prefix}.")
