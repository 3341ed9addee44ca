"""Whether a model's layers obey the mask of a packed row. Where they do not, examples would see each other unnoticed."""

from __future__ import annotations

from functools import cache
from typing import Any

from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.logs import log

_FULL, _SLIDING = "full_attention", "sliding_attention"


def obeys_tree_mask(model: Any, longest: int) -> bool:
    """All layers attend to whatever the mask shows: a sliding window that no sequence is longer than does, too. longest: tokens.

    Recurrent and convolutional layers read over a row's borders; transformers takes a mask of our shape as it is, without a window.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if kinds - {_FULL, _SLIDING} or getattr(model, "_is_stateful", False):
        return False
    slides = _SLIDING in kinds or (not kinds and window is not None and getattr(config, "use_sliding_window", True))
    return not slides or (window or 0) >= longest


def require_known_attention(model: Any, longest: int) -> None:
    """Tells of a model that is read one completion a row, for that costs. longest: tokens of a prompt with its completion.

    Raises ConfigurationProblem for attention that our kernel would compute otherwise than the model's makers.
    """
    name = type(model).__name__
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        raise ConfigurationProblem(
            f"{name} caps the scores of its attention, which the kernel that this version uses does not. Take another model."
        )
    if not obeys_tree_mask(model, longest):
        _tell(name)


@cache
def _tell(name: str) -> None:
    log.info(
        "%s has layers that do not attend in full: it reads one completion a row, and a prompt once for each of its completions",
        name,
    )
