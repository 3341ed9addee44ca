"""The judge must be independent of the training reward; preflight looks at the lineage on top of this."""

from __future__ import annotations

from rlhf_api.reading.manifest import Loc
from rlhf_api.resource.labeler import Labeler
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.validation.problem import Problem, Problems
from rlhf_api.validation.walk import SPEC

_REWARD: Loc = (*SPEC, "reward")
_JUDGE: Loc = (*SPEC, "evaluate", "judge")


def judge_is_independent(spec: RLHFRunSpec) -> Problems:
    if spec.evaluate.allow_training_reward:
        return
    judge, reward = spec.evaluate.judge, spec.reward
    allow = "name another judge, or write allowTrainingReward: true"
    depends = ((*SPEC, "evaluate", "allowTrainingReward"),)
    if judge.rule and reward.rule and judge.rule.entry_point == reward.rule.entry_point:
        place = (*_JUDGE, "rule", "entryPoint")
        yield Problem(place, "the judge is the training reward", allow, depends=(*depends, (*_REWARD, "rule", "entryPoint")))
    for judge_loc, judge_model in _models(judge, _JUDGE):
        for reward_loc, reward_model in _models(reward, _REWARD):
            seen = (*depends, (*reward_loc, "uri"))
            if _same(judge_model.uri, reward_model.uri):
                yield Problem((*judge_loc, "uri"), "the judge is the training reward", allow, depends=seen)
            elif judge_model.base is not None and _same(judge_model.base, reward_model.uri):
                yield Problem((*judge_loc, "base"), "the judge descends from the training reward", allow, depends=seen)


def _models(labeler: Labeler, loc: Loc) -> list[tuple[Loc, ModelRef]]:
    """The trained model of a labeler; one that is trained in the run has none yet."""
    found: list[tuple[Loc, ModelRef]] = []
    if labeler.bradley_terry and labeler.bradley_terry.model:
        found.append(((*loc, "bradleyTerry", "model"), labeler.bradley_terry.model))
    for name, member in (("pairwise", labeler.pairwise), ("multiObjective", labeler.multi_objective), ("judge", labeler.judge)):
        if member:
            found.append(((*loc, name, "model"), member.model))
    return found


def _same(one: str, other: str) -> bool:
    """`base` may be written as on a model card: owner/name."""
    return one.removeprefix("hf://").rstrip("/").lower() == other.removeprefix("hf://").rstrip("/").lower()
