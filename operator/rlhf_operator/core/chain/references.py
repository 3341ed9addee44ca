"""Every model, data set and rule from outside that a spec names, with its path in the spec: the keys of `status.resolved`.

preflight resolves what `external_references` and `rule_references` list; the plan puts the revisions into the StageConfigs through
`Resolver`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from rlhf_api.resource.data import DataSource, Prompts, PromptSource, Source
from rlhf_api.resource.labeler import (
    Human,
    JudgeEndpoint,
    Labeler,
    LlmJudge,
    PairOrders,
    Pairwise,
    PairwiseTraining,
    PreferenceTraining,
)
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import ConfigMapKey
from rlhf_api.stage import PromptIdentity
from rlhf_api.words import StageName

_S = TypeVar("_S", ModelRef, DataSource, PromptSource)

POLICY_MODEL = "policy.model"
REFERENCE_MODEL = "reference.model"
PROMPTS_SOURCE = "prompts.source"
REWARD = "reward"
JUDGE = "evaluate.judge"
SFT_DATA = "sft.data"
OFFLINE_DATA = "train.data.offline"
CHAT_TEMPLATE = "policy.chatTemplate.configMapKeyRef"
SFT_DEEPSPEED = "sft.compute.deepspeed.config"
TRAIN_DEEPSPEED = "train.compute.deepspeed.config"
VALIDATION_SOURCE = "prompts.validation.source"
TEST_SOURCE = "prompts.test.source"
#: No reference: one revision for all tasks, which are of the image, or files that stages see.
LM_EVAL = "evaluate.lmEval"
#: No reference: by what prompts are one, which preflight settles when a run begins.
PROMPT_IDENTITY = "prompts.identity"

#: The stage that trains a labeler's model, where the run does; in the order of the run.
TRAINED_BY = {REWARD: StageName.REWARD, JUDGE: StageName.JUDGE}


@dataclass(frozen=True)
class LabelerTraining:
    """A training reward or judge that the run trains, and the paths of what it takes from outside."""

    stage: StageName
    labeler: str
    """REWARD or JUDGE."""
    member: str
    """Of the labeler, by its name in manifests."""
    training: PreferenceTraining

    @property
    def path(self) -> str:
        return f"{self.labeler}.{self.member}.train"

    @property
    def orders(self) -> PairOrders | None:
        """None: it is a Bradley-Terry model."""
        return self.training.orders if isinstance(self.training, PairwiseTraining) else None

    @property
    def base(self) -> str:
        return f"{self.path}.base"

    @property
    def data(self) -> str:
        return f"{self.path}.data"

    @property
    def held_out(self) -> str:
        return f"{self.path}.heldOut.data"

    @property
    def deepspeed(self) -> str:
        return f"{self.path}.compute.deepspeed.config"


def labeler_trainings(spec: RLHFRunSpec) -> tuple[LabelerTraining, ...]:
    """In the order of their stages."""
    labelers = {REWARD: spec.reward, JUDGE: spec.evaluate.judge}
    return tuple(
        LabelerTraining(stage, path, labelers[path].trained_member, training)
        for path, stage in TRAINED_BY.items()
        if (training := labelers[path].training)
    )


@dataclass(frozen=True)
class ExternalReference:
    """One thing to read from outside the store; `path` is its key in `StageResult.resolved` and `status.resolved`."""

    path: str
    target: ModelRef | Source
    """With {iteration} filled in."""


@dataclass(frozen=True)
class TextReference:
    """A text in a ConfigMap that decides what is made; `path` is the key of its revision, as in ExternalReference."""

    path: str
    key: ConfigMapKey


@dataclass(frozen=True)
class RuleReference:
    """A function that scores; `path` is the key of its code's revision, as in ExternalReference."""

    path: str
    entry_point: str


def external_references(spec: RLHFRunSpec, prompt_iterations: int | None = None) -> tuple[ExternalReference, ...]:
    """All of them, each path once, in the order in which a run reads them. `prompt_iterations`: T, by default spec.iterations."""
    return tuple(_references(spec, prompt_iterations or spec.iterations))


def rule_references(spec: RLHFRunSpec) -> tuple[RuleReference, ...]:
    """The functions among training reward and judge. What a manifest says itself of right responses has no code."""
    labelers = ((REWARD, spec.reward), (JUDGE, spec.evaluate.judge))
    return tuple(
        RuleReference(_rule_path(path), labeler.rule.entry_point)
        for path, labeler in labelers
        if labeler.rule is not None and labeler.rule.entry_point is not None
    )


def text_references(spec: RLHFRunSpec) -> tuple[TextReference, ...]:
    """The chat template, and DeepSpeed configurations of one's own."""
    template = spec.policy.chat_template
    named = {
        CHAT_TEMPLATE: template and template.config_map_key_ref,
        SFT_DEEPSPEED: spec.sft and spec.sft.compute.deepspeed.config,
        **{trained.deepspeed: trained.training.compute.deepspeed.config for trained in labeler_trainings(spec)},
        TRAIN_DEEPSPEED: spec.train.compute.deepspeed.config,
    }
    return tuple(TextReference(path, key) for path, key in named.items() if key)


def format_of(resolved: Mapping[str, str]) -> int | None:
    """`status.format` of a run that was resolved so; None for the first (ADR 0019)."""
    return 2 if resolved.get(PROMPT_IDENTITY) == PromptIdentity.RENDERED_WITH_TOOLS else None


def data_path(list_path: str, name: str) -> str:
    """The path of a named entry: sft.data/<name>."""
    return f"{list_path}/{name}"


def prompt_source_path(source: PromptSource, iteration: int) -> str:
    """prompts.source/<iteration> where the uri has {iteration}, else prompts.source."""
    return f"{PROMPTS_SOURCE}/{iteration}" if varies_by_iteration(source) else PROMPTS_SOURCE


def varies_by_iteration(source: Source) -> bool:
    return "{iteration}" in source.uri


def at_iteration(source: PromptSource, iteration: int) -> PromptSource:
    """The source with {iteration} filled in."""
    return source.model_copy(update={"uri": source.uri.replace("{iteration}", str(iteration))})


def labeler_model(labeler: Labeler, path: str) -> tuple[str, ModelRef] | None:
    """The model from outside that a labeler loads, with its path; None for a rule and for a model that the run trains."""
    holders = {
        "bradleyTerry": labeler.bradley_terry,
        "pairwise": labeler.pairwise,
        "multiObjective": labeler.multi_objective,
        "judge": labeler.judge,
    }
    for member, holder in holders.items():
        if holder is not None and holder.model is not None:
            return f"{path}.{member}.model", holder.model
    return None


@dataclass(frozen=True)
class Resolver:
    """Puts resolved revisions into references; what was not resolved keeps the revision that it declares."""

    resolved: Mapping[str, str]

    def pin(self, path: str, target: _S) -> _S:
        revision = self.resolved.get(path)
        return target if revision is None else target.model_copy(update={"revision": revision})

    def revision(self, path: str) -> str | None:
        return self.resolved.get(path)

    def pin_all(self, list_path: str, sources: list[DataSource]) -> list[DataSource]:
        return [self.pin(data_path(list_path, source.name), source) for source in sources]

    def labeler(self, path: str, labeler: Labeler) -> Labeler:
        """The labeler as a stage's work: its model pinned; a Bradley-Terry model, and one that the run trains, comes as
        the stage's ModelInput instead."""
        if labeler.bradley_terry is not None:
            return labeler.model_copy(update={"bradley_terry": type(labeler.bradley_terry)()})
        if labeler.pairwise is not None and labeler.pairwise.model is None:
            return labeler.model_copy(update={"pairwise": Pairwise()})
        if labeler.human is not None:
            # Which pairs are asked about is ask's work; whether enough are answered is settled before they are imported.
            return labeler.model_copy(update={"human": Human(annotators_per_pair=labeler.human.annotators_per_pair)})
        if labeler.judge is not None and labeler.judge.endpoint is not None:
            return labeler.model_copy(update={"judge": _as_work(labeler.judge, labeler.judge.endpoint)})
        found = labeler_model(labeler, path)
        if found is None:
            return labeler
        pinned = self.pin(*found)
        for member in ("pairwise", "multi_objective", "judge"):
            holder = getattr(labeler, member)
            if holder is not None:
                return labeler.model_copy(update={member: holder.model_copy(update={"model": pinned})})
        return labeler

    def rule_revision(self, path: str, labeler: Labeler) -> str | None:
        """None for what has no code, and for a rule that was not resolved: its work is what it was before rules had revisions."""
        code = labeler.rule is not None and labeler.rule.entry_point is not None
        return self.resolved.get(_rule_path(path)) if code else None

    def prompts(self, prompts: Prompts) -> Prompts:
        """The whole section, for the hold-outs; a source with {iteration} is pinned by `source_revisions` instead."""
        update: dict[str, object] = {
            "validation": self._hold_out(VALIDATION_SOURCE, prompts, "validation"),
            # What preflight refuses changes nothing of what is made.
            "max_near_held_out": Prompts.model_fields["max_near_held_out"].default,
        }
        if prompts.test is not None:
            update["test"] = self._hold_out(TEST_SOURCE, prompts, "test")
        if not varies_by_iteration(prompts.source):
            update["source"] = self.pin(PROMPTS_SOURCE, prompts.source)
        return prompts.model_copy(update=update)

    def source_revisions(self, source: PromptSource, iterations: int) -> list[str]:
        """Revisions of the sources of iterations 1..T; empty unless the uri has {iteration} and all of them were resolved."""
        if not varies_by_iteration(source):
            return []
        found = [self.resolved.get(prompt_source_path(source, number)) for number in range(1, iterations + 1)]
        return [revision for revision in found if revision is not None] if all(found) else []

    @property
    def prompt_identity(self) -> PromptIdentity:
        """As preflight found it when the run began; runs of before have none, and keep what they were cut by."""
        return PromptIdentity(self.resolved.get(PROMPT_IDENTITY, PromptIdentity.MESSAGES))

    def _hold_out(self, path: str, prompts: Prompts, name: str) -> object:
        hold_out = getattr(prompts, name)
        if hold_out.source is None:
            return hold_out
        return hold_out.model_copy(update={"source": self.pin(path, hold_out.source)})


def _as_work(judge: LlmJudge, endpoint: JudgeEndpoint) -> LlmJudge:
    """Who is asked, and what. How, and with which key, is in Execution: it is no part of the answers."""
    return judge.model_copy(update={"endpoint": JudgeEndpoint(base_url=endpoint.base_url, model=endpoint.model)})


def _rule_path(labeler_path: str) -> str:
    return f"{labeler_path}.rule"


def _references(spec: RLHFRunSpec, iterations: int) -> Iterator[ExternalReference]:
    yield ExternalReference(POLICY_MODEL, spec.policy.model)
    if spec.sft is not None:
        yield from _named(SFT_DATA, spec.sft.data)
    for trained in labeler_trainings(spec):
        training = trained.training
        if training.base is not None:
            yield ExternalReference(trained.base, training.base)
        yield from _named(trained.data, training.data)
        if training.held_out is not None and training.held_out.data is not None:
            yield ExternalReference(trained.held_out, training.held_out.data)
    for labeler, path in ((spec.reward, REWARD), (spec.evaluate.judge, JUDGE)):
        if (found := labeler_model(labeler, path)) is not None:
            yield ExternalReference(*found)
    yield from _prompts(spec.prompts, iterations)
    if spec.reference.model is not None:
        yield ExternalReference(REFERENCE_MODEL, spec.reference.model)
    yield from _named(OFFLINE_DATA, spec.train.data.offline)


def _named(path: str, sources: list[DataSource]) -> Iterator[ExternalReference]:
    for source in sources:
        yield ExternalReference(data_path(path, source.name), source)


def _prompts(prompts: Prompts, iterations: int) -> Iterator[ExternalReference]:
    seen: set[str] = set()
    for number in range(1, iterations + 1):
        path = prompt_source_path(prompts.source, number)
        if path not in seen:
            seen.add(path)
            yield ExternalReference(path, at_iteration(prompts.source, number))
    if prompts.validation.source is not None:
        yield ExternalReference(VALIDATION_SOURCE, prompts.validation.source)
    if prompts.test is not None and prompts.test.source is not None:
        yield ExternalReference(TEST_SOURCE, prompts.test.source)
