"""Values that the API has and this version cannot do yet. One table; empty in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..labeler import Labeler, LabelerType
from ..manifest import Loc
from ..run import RLHFRunSpec
from .problem import Category, Problem, Problems
from .walk import SPEC

_LABELERS = (LabelerType.PAIRWISE, LabelerType.MULTI_OBJECTIVE, LabelerType.JUDGE, LabelerType.HUMAN)
_READY_LABELERS = "write BradleyTerry or Rule"
_REWARD: Loc = (*SPEC, "reward")
_JUDGE: Loc = (*SPEC, "evaluate", "judge")


@dataclass(frozen=True)
class NotAvailable:
    """An entry of the table: where, when, what is missing, what to write instead."""

    loc: Loc
    applies: Callable[[RLHFRunSpec], bool]
    what: str
    instead: str


def _labeler(loc: Loc, of: Callable[[RLHFRunSpec], Labeler], kind: LabelerType) -> NotAvailable:
    return NotAvailable((*loc, "type"), lambda spec: of(spec).type is kind, f"a {kind.value} labeler", _READY_LABELERS)


def _is_deterministic(spec: RLHFRunSpec) -> bool:
    return spec.sample.deterministic


def _has_tasks(spec: RLHFRunSpec) -> bool:
    return bool(spec.evaluate.lm_eval.tasks)


def _has_offline_data(spec: RLHFRunSpec) -> bool:
    return bool(spec.train.data.offline)


def _trains_judge(spec: RLHFRunSpec) -> bool:
    judge = spec.evaluate.judge.bradley_terry
    return judge is not None and judge.train is not None


NOT_AVAILABLE: tuple[NotAvailable, ...] = (
    *(_labeler(_REWARD, lambda spec: spec.reward, kind) for kind in _LABELERS),
    *(_labeler(_JUDGE, lambda spec: spec.evaluate.judge, kind) for kind in _LABELERS),
    NotAvailable((*_JUDGE, "bradleyTerry", "train"), _trains_judge, "a judge trained by the run", "train it first; give model"),
    NotAvailable((*SPEC, "sample", "deterministic"), _is_deterministic, "deterministic sampling", "write false"),
    NotAvailable((*SPEC, "evaluate", "lmEval", "tasks"), _has_tasks, "lm-evaluation-harness", "leave it empty"),
    NotAvailable((*SPEC, "train", "data", "offline"), _has_offline_data, "training on offline preferences", "leave it empty"),
)


def not_available(spec: RLHFRunSpec) -> Problems:
    for entry in NOT_AVAILABLE:
        if entry.applies(spec):
            wrong = f"{entry.what} is not available in this version"
            yield Problem(entry.loc, wrong, entry.instead, category=Category.NOT_AVAILABLE)
