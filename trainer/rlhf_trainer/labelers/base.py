"""What a labeler is: (prompt, response) pairs in, scores out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhf_api.labeler import Labeler as LabelerSpec
from rlhf_api.labeler import LabelerType
from rlhf_api.stage import ModelInput
from rlhf_trainer.runtime.context import StageContext
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.narrow import present


@dataclass(frozen=True)
class Response:
    """A response to judge, as text: a labeler has its own tokenizer and template."""

    messages: Sequence[Mapping[str, str]]
    text: str


class Labeler(Protocol):
    def score(self, responses: Sequence[Response], on_progress: Callable[[int], None] = ...) -> list[float]:
        """A finite score for each response, more is better. `on_progress` hears how many are done."""


def load_labeler(context: StageContext, spec: LabelerSpec, model: ModelInput | None) -> Labeler:
    """Raises ConfigurationProblem when the labeler cannot be had: no such function, no such model, a random head."""
    from .bradley_terry import BradleyTerryLabeler
    from .rule import RuleLabeler

    match spec.type:
        case LabelerType.RULE:
            return RuleLabeler.load(present(spec.rule, "rule").entry_point)
        case LabelerType.BRADLEY_TERRY:
            reward = present(model, "the reward model")
            return BradleyTerryLabeler.load(context.model_folder(reward), trust_remote_code=context.trusts(reward))
    raise ConfigurationProblem(f"A labeler of type {spec.type} is not available in this version. Use BradleyTerry or Rule.")


def ignore_progress(done: int) -> None:
    """For callers that show none."""
