"""config.json of a model: as it stands there, and as transformers reads it. Whoever finds it wrong says so in the same words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_api.resource.model import ModelRef
from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line

#: Fields by which transformers divides hold one of these.
_DIVISORS = ("head", "size", "group")


def read_config(folder: Path, model: ModelRef) -> dict[str, Any]:
    """As it stands there. Raises ConfigurationProblem where it is no JSON, or no object."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationProblem(f"{model.uri}: config.json cannot be read: {error}. Copy it anew.") from error
    if not isinstance(config, dict):
        raise ConfigurationProblem(f"{model.uri}: config.json is no object but {json.dumps(config)[:40]}. Copy it anew.")
    return config


def architectures_of(folder: Path, model: ModelRef) -> list[str]:
    """The classes that config.json names; [] where it names none. Raises ConfigurationProblem where they are no list of names."""
    named = read_config(folder, model).get("architectures") or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ConfigurationProblem(
            f"{model.uri}: architectures is {json.dumps(named)[:80]} in its config.json, and it must be a list of names of "
            'classes, such as ["LlamaForCausalLM"]. Write the class of the model there.'
        )
    return named


def transformers_config(folder: Path, model: ModelRef, **options: Any) -> Any:
    """A PreTrainedConfig. Raises ConfigurationProblem where transformers makes none of what stands there."""
    from transformers import AutoConfig

    raw = read_config(folder, model)
    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=model.trust_remote_code, **options)
    # Whatever stands in a file may make it raise anything, and so may code that the model brings.
    except Exception as error:
        raise ConfigurationProblem(
            f"{model.uri}: transformers cannot read its config.json: {_said(error, raw)}. Correct it, or name another model."
        ) from error


def _said(error: Exception, raw: dict[str, Any]) -> str:
    if isinstance(error, ArithmeticError):
        zeros = sorted(name for name in _zeros(raw) if any(part in name for part in _DIVISORS))
        return f"{', '.join(zeros) or 'a number'} is 0, and it divides by that"
    lines = str(error).strip().splitlines()
    # huggingface_hub's checks of fields say in the first line only that there is something, and in the second what.
    if len(lines) > 1 and lines[0].endswith(":"):
        return lines[1].strip().removeprefix("TypeError: ").removeprefix("ValueError: ").rstrip(".")
    text = first_line(error).rstrip(".")
    return text if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {text}"


def _zeros(fields: dict[str, Any]) -> Iterator[str]:
    """Names of fields that are 0, at any depth."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _zeros(value)
        elif value == 0 and type(value) is int:
            yield name
