"""Rules can be imported, and answer a number to what they will be asked; their code gets a revision."""

from __future__ import annotations

from collections.abc import Callable

from rlhf_operator.core.chain.references import REWARD, RuleReference
from rlhf_trainer.data.prompts import Prompt, PromptSets
from rlhf_trainer.labelers.rule import RuleLabeler

#: A policy may end at once, and it may say little.
_RESPONSES = ("", "Yes.")


def rule(reference: RuleReference, prompts: Callable[[], PromptSets], resolved: dict[str, str]) -> None:
    """Puts the revision into `resolved`, and tries the function on a first prompt of each set that it will score.

    And on the first with tools.
    """
    labeler = RuleLabeler.load(reference.rule.entry_point)
    if (revision := labeler.revision) is not None:
        resolved[reference.path] = revision
    for prompt in _first_prompts(reference, prompts()):
        for response in _RESPONSES:
            labeler.try_on(prompt.messages, response, prompt.tools)


def _first_prompts(reference: RuleReference, sets: PromptSets) -> list[Prompt]:
    """The reward scores samples and, in evaluate, validation; the judge validation and test."""
    scored = [*sets.training, sets.validation] if reference.path.startswith(f"{REWARD}.") else [sets.validation, sets.test]
    kinds = [[p for p in prompts if (p.tools is None) is without] for prompts in scored for without in (True, False)]
    return [prompts[0] for prompts in kinds if prompts]
