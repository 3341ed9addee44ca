"""Rules answer a number to what they will be asked: functions, whose code gets a revision, and what a manifest says itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from rlhf_api.resource.labeler import Labeler
from rlhf_operator.core.chain.references import REWARD, RuleReference
from rlhf_trainer.data.prompts import Prompt, PromptSets
from rlhf_trainer.labelers.declared.labeler import DeclaredLabeler
from rlhf_trainer.labelers.rule import RuleLabeler

#: A policy may end at once, and it may say little.
_RESPONSES = ("", "Yes.")


def rule(reference: RuleReference, prompts: Callable[[], PromptSets], resolved: dict[str, str]) -> None:
    """Puts the revision into `resolved`, and tries the function on a first prompt of each set that it will score.

    And on the first with tools.
    """
    labeler = RuleLabeler.load(reference.entry_point)
    if (revision := labeler.revision) is not None:
        resolved[reference.path] = revision
    for prompt in _first_prompts(reference, prompts()):
        for response in _RESPONSES:
            labeler.try_on(prompt.messages, response, prompt.tools)


def declared(spec: Labeler, path: str, prompts: Callable[[], PromptSets]) -> None:
    """What a manifest says itself of right responses can be asked, and every prompt has the answer that it compares with."""
    if spec.rule is None or spec.rule.entry_point is not None:
        return
    labeler = DeclaredLabeler.load(spec.rule, f"{path}.rule")
    if spec.rule.needs_answer:
        for prompt in chain(*_scored(path, prompts())):
            labeler.require_answer(prompt)


def _scored(path: str, sets: PromptSets) -> Sequence[Sequence[Prompt]]:
    """The reward scores samples and, in evaluate, validation; the judge validation and test."""
    return [*sets.training, sets.validation] if path.startswith(REWARD) else [sets.validation, sets.test]


def _first_prompts(reference: RuleReference, sets: PromptSets) -> list[Prompt]:
    scored = _scored(reference.path, sets)
    kinds = [[p for p in prompts if (p.tools is None) is without] for prompts in scored for without in (True, False)]
    return [prompts[0] for prompts in kinds if prompts]
