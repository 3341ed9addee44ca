"""What is trained on asks what is held out: the same, which is left out, or nearly the same, which is trained on up to a share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlhf_trainer.data.held_out import HeldOutPrompts, Overlap
from rlhf_trainer.data.prompts import PromptSets
from rlhf_trainer.runtime.errors import ConfigurationProblem


@dataclass(frozen=True)
class HeldOut:
    """load: the held-out prompts, once. most: prompts.maxNearHeldOut. `warnings` and `counts` are preflight's."""

    load: Callable[[], HeldOutPrompts]
    most: float
    warnings: list[str]
    counts: dict[str, int]

    def judge(self, name: str, uri: str, overlap: Overlap) -> None:
        """Counts one source (`heldOut/<name>`, `nearHeldOut/<name>`). Raises ConfigurationProblem where too many are near."""
        if overlap.same:
            self.counts[f"heldOut/{name}"] = overlap.same
            self.warnings.append(
                f"{uri}: {overlap.same} of {overlap.asked} conversations answer prompts of validation or test; they are left out."
            )
        if not overlap.near:
            return
        self.counts[f"nearHeldOut/{name}"] = overlap.near
        told = (
            f"{uri}: {overlap.near} of {overlap.trained} ({overlap.near / overlap.trained:.2%}) ask nearly what a prompt of "
            "validation or test asks."
        )
        if overlap.first:
            told += f" The first: {overlap.first}."
        if overlap.near > self.most * overlap.trained:
            raise ConfigurationProblem(
                f"{told} Figures on prompts that are half known say too much. Remove such rows, or hold out other prompts; or "
                f"allow a larger share with prompts.maxNearHeldOut (now {self.most:g})."
            )
        self.warnings.append(f"{told} They are trained on; remove them if they are the same question.")


def prompts(uri: str, sets: Callable[[], PromptSets], held_out: HeldOut) -> None:
    """What the iterations ask. None of it is held out itself: hold-outs are taken first."""
    overlap = Overlap()
    for part in sets().training:
        for prompt in part:
            overlap.look(prompt.where, [prompt.messages], held_out.load(), prompt.tools)
    held_out.judge("prompts", uri, overlap)
