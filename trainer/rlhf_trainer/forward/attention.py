"""Whether a model's attention obeys the mask of a packed row. Where it does not, examples see each other, and nothing tells."""

from __future__ import annotations

from typing import Any

from rlhf_trainer.runtime.errors import ConfigurationProblem

_FULL, _SLIDING = "full_attention", "sliding_attention"


def require_full_attention(model: Any, longest: int) -> None:
    """Layers must attend to whatever the mask shows: a sliding window that no sequence is longer than does, too. longest: tokens.

    Recurrent and convolutional layers read over a row's borders; transformers takes a mask of our shape as it is, without a window.
    Raises ConfigurationProblem, also for models that keep a state beside the attention's keys and values.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    name = type(model).__name__
    others = sorted(kinds - {_FULL, _SLIDING}) or (["a recurrent state"] if getattr(model, "_is_stateful", False) else [])
    if getattr(config, "attn_logit_softcapping", None):
        raise ConfigurationProblem(
            f"{name} caps the scores of its attention, which the kernel that this version uses does not. Take another model."
        )
    if others:
        raise ConfigurationProblem(
            f"{name} has layers that are no full attention ({', '.join(others)}): this version packs several examples into a row, "
            "and such layers would read over the borders between them. Take a model whose layers all attend in full."
        )
    slides = _SLIDING in kinds or (not kinds and window is not None and getattr(config, "use_sliding_window", True))
    if slides and (window or 0) < longest:
        raise ConfigurationProblem(
            f"{name} attends to the last {window} tokens alone, and a sequence here has {longest}: this version would let it see "
            f"all of them, which it was not made for. Lower maxLength, maxPromptLength or maxNewTokens to {window} tokens in all."
        )
