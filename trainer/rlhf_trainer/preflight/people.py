"""How much people are asked: whoever has to find them wants to know it before anything is sampled."""

from __future__ import annotations

from collections.abc import Callable

from rlhf_api.resource.run import RLHFRunSpec
from rlhf_operator.core.chain.references import REWARD
from rlhf_trainer.data.prompts import PromptSets


def questions(spec: RLHFRunSpec, prompts: Callable[[], PromptSets], counts: dict[str, int], warnings: list[str]) -> None:
    """Of the whole run go into `counts`, and words of them into `warnings`.

    They are as many as there can be: nobody is asked about responses that are equal.
    """
    human = spec.reward.human
    if human is None:
        return
    asked = [len(training) * human.pairs_per_prompt for training in prompts().training]
    counts[f"{REWARD}.questions"] = sum(asked)
    counts[f"{REWARD}.answers"] = sum(asked) * human.annotators_per_pair
    most = max(asked, default=0)
    each = "" if human.annotators_per_pair == 1 else f", each of {human.annotators_per_pair} people"
    warnings.append(
        f"{REWARD}: this run asks people up to {most} questions an iteration{each}, {sum(asked)} in all, and waits for their "
        "answers in each."
    )
