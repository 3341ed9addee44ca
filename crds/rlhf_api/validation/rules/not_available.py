"""Values that the API has and this version cannot do yet. One table; empty in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlhf_api.reading.manifest import Loc
from rlhf_api.resource.labeler import Labeler, LabelerType
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.validation.problem import Category, Problem, Problems
from rlhf_api.validation.walk import SPEC

_READY_JUDGES = "write BradleyTerry, Pairwise, MultiObjective, Rule or Judge"
_REWARD: Loc = (*SPEC, "reward")
_JUDGE: Loc = (*SPEC, "evaluate", "judge")
_OWN_CODE = "training a model whose code comes with it"
_OF_TRANSFORMERS = "write false, for a model that transformers has a class of"


@dataclass(frozen=True)
class NotAvailable:
    """An entry of the table: where, when, what is missing, what to write instead."""

    loc: Loc
    applies: Callable[[RLHFRunSpec], bool]
    what: str
    instead: str


def _judged_by_people(spec: RLHFRunSpec) -> bool:
    return spec.evaluate.judge.type is LabelerType.HUMAN


def _trains_own_code(spec: RLHFRunSpec) -> bool:
    return spec.policy.model.trust_remote_code


def _trained_of_own_code(loc: Loc, of: Callable[[RLHFRunSpec], Labeler], member: str) -> NotAvailable:
    def applies(spec: RLHFRunSpec) -> bool:
        training = of(spec).training
        own = of(spec).trained_member == member
        return bool(own and training and training.base and training.base.trust_remote_code)

    place = (*loc, member, "train", "base", "trustRemoteCode")
    return NotAvailable(place, applies, _OWN_CODE, _OF_TRANSFORMERS)


NOT_AVAILABLE: tuple[NotAvailable, ...] = (
    NotAvailable((*_JUDGE, "type"), _judged_by_people, "people as the judge", _READY_JUDGES),
    NotAvailable((*SPEC, "policy", "model", "trustRemoteCode"), _trains_own_code, _OWN_CODE, _OF_TRANSFORMERS),
    _trained_of_own_code(_REWARD, lambda spec: spec.reward, "bradleyTerry"),
    _trained_of_own_code(_REWARD, lambda spec: spec.reward, "pairwise"),
    _trained_of_own_code(_JUDGE, lambda spec: spec.evaluate.judge, "bradleyTerry"),
    _trained_of_own_code(_JUDGE, lambda spec: spec.evaluate.judge, "pairwise"),
)


def not_available(spec: RLHFRunSpec) -> Problems:
    for entry in NOT_AVAILABLE:
        if entry.applies(spec):
            wrong = f"{entry.what} is not available in this version"
            yield Problem(entry.loc, wrong, entry.instead, category=Category.NOT_AVAILABLE)
