"""Pieces of the sentences that a status shows."""

from __future__ import annotations

import re

from rlhf_api.words import StageName

#: `message` of the status model.
_LONGEST_MESSAGE = 2048
#: C0 but tab and newline, DEL, C1.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def stage_of(iteration: int | None, stage: StageName, iterations: int | None = None) -> str:
    """`stage train of iteration 2 [of 3]`, `stage sft`, `stage evaluate of pi_0`."""
    if iteration is None:
        of_an_iterate = stage in (StageName.EVALUATE, StageName.BENCHMARK)
        return f"stage {stage} of pi_0" if of_an_iterate else f"stage {stage}"
    return f"stage {stage} of iteration {iteration}" + ("" if iterations is None else f" of {iterations}")


def sentence(text: str) -> str:
    """With a capital first letter."""
    return text[:1].upper() + text[1:]


def clip(text: str, longest: int = _LONGEST_MESSAGE) -> str:
    """Within the bound (a status's), cut visibly, and without what would steer a terminal: some of it is any image's to write."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
    return text if len(text) <= longest else text[: longest - 2] + " …"
