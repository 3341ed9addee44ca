"""The labeler that a manifest names."""

from __future__ import annotations

from rlhf_api.resource.labeler import Labeler as LabelerSpec
from rlhf_api.resource.labeler import LabelerType
from rlhf_api.stage import ModelInput
from rlhf_trainer.models.folder import model_folder, trusts
from rlhf_trainer.runtime.context import StageContext
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.narrow import present

from .base import Labeler


def load_labeler(context: StageContext, spec: LabelerSpec, model: ModelInput | None) -> Labeler:
    """Raises ConfigurationProblem when the labeler cannot be had: no such function, no such model, a random head."""
    from .bradley_terry import BradleyTerryLabeler
    from .rule import RuleLabeler

    match spec.type:
        case LabelerType.RULE:
            return RuleLabeler.load(present(spec.rule, "rule").entry_point)
        case LabelerType.BRADLEY_TERRY:
            reward = present(model, "the reward model")
            return BradleyTerryLabeler.load(model_folder(context, reward), trust_remote_code=trusts(reward))
    raise ConfigurationProblem(f"A labeler of type {spec.type} is not available in this version. Use BradleyTerry or Rule.")
