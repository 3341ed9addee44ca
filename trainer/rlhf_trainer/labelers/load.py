"""The labeler that a manifest names."""

from __future__ import annotations

from rlhf_api.resource.labeler import JudgeEndpoint, LabelerType, Rule
from rlhf_api.resource.labeler import Labeler as LabelerSpec
from rlhf_api.stage import ModelInput
from rlhf_trainer.models.folder import model_folder, trusts
from rlhf_trainer.runtime.context import StageContext
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.narrow import present

from .base import Labeler


def require_rule(spec: LabelerSpec, revision: str | None) -> None:
    """What `load_labeler` would say of a rule, before the work that comes first; nothing of other labelers."""
    if spec.rule is not None:
        _rule(spec.rule, revision)


def load_labeler(
    context: StageContext,
    spec: LabelerSpec,
    model: ModelInput | None,
    rule_revision: str | None = None,
    endpoint: JudgeEndpoint | None = None,
) -> Labeler:
    """endpoint: of a judge, with how it is asked.

    Raises ConfigurationProblem when the labeler cannot be had: no such function or other code, no such model, a random head.
    """
    from .bradley_terry import BradleyTerryLabeler
    from .gated.labeler import MultiObjectiveLabeler
    from .judge.labeler import JudgeLabeler
    from .judge.own_model import OwnModel
    from .pairwise.labeler import PairwiseLabeler

    match spec.type:
        case LabelerType.RULE:
            return _rule(present(spec.rule, "rule"), rule_revision)
        case LabelerType.BRADLEY_TERRY:
            reward = present(model, "the reward model")
            return BradleyTerryLabeler.load(model_folder(context, reward), trust_remote_code=trusts(reward))
        case LabelerType.PAIRWISE:
            preference = present(model, "the preference model")
            return PairwiseLabeler.load(model_folder(context, preference), trust_remote_code=trusts(preference))
        case LabelerType.MULTI_OBJECTIVE:
            return MultiObjectiveLabeler.load(model_folder(context, present(model, "the multi-objective reward model")))
        case LabelerType.JUDGE if spec.judge is not None and spec.judge.endpoint is not None:
            return JudgeLabeler.load(spec.judge, endpoint, context.config.seed, context.config.execution.shards)
        case LabelerType.JUDGE if spec.judge is not None:
            chat = present(model, "the judge's model")
            name = present(chat.source, "the source of the judge's model").uri
            engine = context.config.execution.engine
            return JudgeLabeler(OwnModel(model_folder(context, chat), name, engine, trust_remote_code=trusts(chat)), spec.judge)
    raise ConfigurationProblem(
        f"A labeler of type {spec.type} is not available. Use BradleyTerry, Pairwise, MultiObjective, Rule or Judge."
    )


def _rule(rule: Rule, revision: str | None) -> Labeler:
    from .declared.labeler import DeclaredLabeler
    from .rule import RuleLabeler

    return DeclaredLabeler.load(rule) if rule.entry_point is None else RuleLabeler.load(rule.entry_point, revision)
