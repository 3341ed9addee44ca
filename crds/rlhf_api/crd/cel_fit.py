"""What must fit together, in CEL: the rules of `rlhf_api.validation` that the API server can check by itself, and cheaply.

Each is a rule there too, which says more: it names the values. A rule here never refuses what that one accepts; a test runs one
table of wrong manifests through both. An object whose default is `{}` is checked before its fields have theirs: hence has().
"""

from __future__ import annotations

from collections.abc import Iterable

from rlhf_api.base import Model
from rlhf_api.metrics import Metric
from rlhf_api.resource.compute import DeepSpeed, Offload
from rlhf_api.resource.data import DataSource, Prompts, PromptSource
from rlhf_api.resource.evaluation import Against, Evaluate, Gate, GateAction, Selection
from rlhf_api.resource.labeler import LabelerType, PairwiseTraining, RewardTraining
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.sampling import Sample
from rlhf_api.resource.training import Label, Reference, Sft, Train
from rlhf_api.resource.unions import CelRule
from rlhf_api.validation.rules.evaluation import NEEDS, SELECTABLE


def _words(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _not_above(low: str, high: str, message: str) -> CelRule:
    return CelRule(f"!has(self.{low}) || !has(self.{high}) || self.{low} <= self.{high}", message, low)


_PARALLELISM = _not_above("parallelism", "shards", "there are not so many shards; lower parallelism, or raise shards")

#: Numbers that are refused for being below 1 are no divisors.
_BATCH_DIVIDES = CelRule(
    "!has(self.optimization) || !has(self.compute) || self.compute.nodes * self.compute.processesPerNode < 1 || "
    "self.optimization.globalBatchSize % (self.compute.nodes * self.compute.processesPerNode) == 0",
    "globalBatchSize must be a multiple of the ranks: compute.nodes times compute.processesPerNode",
    "optimization.globalBatchSize",
)
_TRAIN = [
    _BATCH_DIVIDES,
    CelRule(
        "!has(self.maxPromptLength) || !has(self.maxLength) || self.maxPromptLength < self.maxLength",
        "the prompt leaves no token for the response; write less than maxLength",
        "maxPromptLength",
    ),
    CelRule(
        "!has(self.tokenBudget) || !has(self.maxLength) || self.tokenBudget >= self.maxLength",
        "less than one row; write at least maxLength, or leave it out",
        "tokenBudget",
    ),
]

_OFFLOAD = CelRule(
    "has(self.config) || !has(self.offload) || !has(self.zeroStage) || self.zeroStage >= "
    f"(self.offload == '{Offload.ALL}' ? 3 : (self.offload == '{Offload.OPTIMIZER}' ? 1 : 0))",
    "Optimizer needs zeroStage 1 or more, All needs zeroStage 3",
    "offload",
)

_HUB_ONLY = [
    CelRule(
        "self.uri.startsWith('hf:') || !(has(self.revision) || has(self.credentials))",
        "only a model or data set of a hub has revision and credentials; remove them",
    )
]
_DATA_OF_HUB_ONLY = [
    *_HUB_ONLY,
    CelRule(
        "self.uri.startsWith('hf:') || !has(self.config)",
        "only a data set of a hub has configurations; remove config",
        "config",
    ),
]

_PROMPTS = [
    CelRule(
        "!has(self.validation) || !has(self.validation.size) || self.validation.size > 0",
        "selection and gates need prompts; write at least 1",
        "validation.size",
    ),
    CelRule(
        "!has(self.test) || has(self.test.source) || has(self.validation.source) || "
        "!has(self.test.fraction) || !has(self.validation.fraction) || self.test.fraction + self.validation.fraction < 1.0",
        "all prompts are held out; write fractions for test and validation whose sum is below 1",
        "test.fraction",
    ),
]

_AGAINST_ONCE = CelRule(
    "!has(self.against) || self.against.size() != 2 || self.against[0] != self.against[1]", "name each opponent once", "against"
)

_SELECTABLE = CelRule(
    f"!has(self.metric) || self.metric in [{_words(SELECTABLE)}]",
    f"iterates, pi_0 among them, have no order by it; write one of {', '.join(SELECTABLE)}",
    "metric",
)

_SHARES = [metric for metric in Metric if metric.unit == "share"]
_GATE_BOUNDS = [
    CelRule(
        f"!has(self.{bound}) || (self.{bound} >= 0.0 && self.{bound} <= 1.0) || !has(self.metric) || "
        f"!(self.metric in [{_words(_SHARES)}])",
        "the metric is a share; write a number from 0 to 1, as 0.45 for 45 %",
        bound,
    )
    for bound in ("min", "max")
]


def _opponents() -> list[CelRule]:
    rules = []
    for opponent in Against:
        metrics = _words(metric for metric, needed in NEEDS.items() if needed is opponent)
        rules.append(
            CelRule(
                f"'{opponent}' in self.evaluate.against || !(self.selection.metric in [{metrics}] || "
                f"self.gates.exists(gate, has(gate.metric) && gate.metric in [{metrics}]))",
                f"selection or a gate compares with {opponent}; add {opponent} here, or name another metric there",
                "evaluate.against",
            )
        )
    return rules


def _no_mean(labeler: str, metric: Metric) -> CelRule:
    comparing = [kind for kind in LabelerType if kind.compares]
    return CelRule(
        f"!(self.{labeler}.type in [{_words(comparing)}]) || (self.selection.metric != '{metric}' && "
        f"!self.gates.exists(gate, has(gate.metric) && gate.metric == '{metric}'))",
        f"{', '.join(comparing[:-1])} and {comparing[-1]} labelers give no score that has a mean; selection or a gate uses "
        f"{metric}: name another metric there",
        f"{labeler}.type",
    )


def _scorers(labeler: str) -> str:
    """A list of what scores: the model's URI, or the rule's function; nothing for a model that the run trains."""
    models = [f"self.{labeler}.{member}" for member in ("bradleyTerry", "pairwise", "judge")]
    found = [f"(has({member}) && has({member}.model) ? [{member}.model.uri] : [])" for member in models]
    found.append(f"(has(self.{labeler}.multiObjective) ? [self.{labeler}.multiObjective.model.uri] : [])")
    judge = f"self.{labeler}.judge"
    endpoint = f"{judge}.endpoint"
    found.append(f"(has({judge}) && has({endpoint}) ? [{endpoint}.model + ' at ' + {endpoint}.baseUrl] : [])")
    rule = f"self.{labeler}.rule"
    found.append(f"(has({rule}) && has({rule}.entryPoint) ? [{rule}.entryPoint] : [])")
    return "(" + " + ".join(found) + ")"


_INDEPENDENT_JUDGE = CelRule(
    "self.evaluate.allowTrainingReward || "
    f"!{_scorers('evaluate.judge')}.exists(judge, {_scorers('reward')}.exists(reward, judge == reward))",
    "the judge is the training reward; name another judge, or write allowTrainingReward: true",
    "evaluate.judge",
)

_SPEC = [
    *_opponents(),
    _no_mean("reward", Metric.REWARD_MEAN),
    _no_mean("evaluate.judge", Metric.JUDGE_MEAN),
    _INDEPENDENT_JUDGE,
    CelRule(
        "self.sample.mixture.all(entry, !has(entry.iterate.iteration) || entry.iterate.iteration < self.iterations)",
        "an entry names an iterate that is never sampled from; write an iteration less than spec.iterations",
        "sample.mixture",
    ),
    CelRule(
        f"self.approvals.all(approval, self.gates.exists(gate, gate.name == approval.gate && gate.action == '{GateAction.PAUSE}'))",
        "an approval names a gate that there is not, or one that does not pause; write the name of a gate with action Pause",
        "approvals",
    ),
    CelRule(
        "self.approvals.all(approval, approval.iteration >= 1 && approval.iteration <= self.iterations)",
        "an approval is of an iteration that there is not; write 1 to spec.iterations",
        "approvals",
    ),
    CelRule(
        f"size(self.annotations) == 0 || self.reward.type == '{LabelerType.HUMAN}'",
        "annotations are answers of people; remove them, or let reward be of type Human",
        "annotations",
    ),
    CelRule(
        "self.annotations.all(entry, entry.iteration <= self.iterations)",
        "annotations are of an iteration that there is not; write 1 to spec.iterations",
        "annotations",
    ),
    CelRule(
        "!has(self.reward.human) || self.reward.human.pairsPerPrompt <= "
        "self.sample.completionsPerPrompt * (self.sample.completionsPerPrompt - 1) / 2",
        "more pairs than the completions of a prompt make; write at most n (n - 1) / 2 of sample.completionsPerPrompt",
        "reward.human.pairsPerPrompt",
    ),
]

FITTING: dict[type[Model], list[CelRule]] = {
    RLHFRunSpec: _SPEC,
    Sample: [_PARALLELISM],
    Label: [_PARALLELISM],
    Reference: [_PARALLELISM],
    Sft: [_BATCH_DIVIDES],
    RewardTraining: [_BATCH_DIVIDES],
    PairwiseTraining: [_BATCH_DIVIDES],
    Train: _TRAIN,
    DeepSpeed: [_OFFLOAD],
    ModelRef: _HUB_ONLY,
    DataSource: _DATA_OF_HUB_ONLY,
    PromptSource: _DATA_OF_HUB_ONLY,
    Prompts: _PROMPTS,
    Evaluate: [_AGAINST_ONCE],
    Selection: [_SELECTABLE],
    Gate: _GATE_BOUNDS,
}
