"""preflight: everything that would stop the run later, found before a GPU is asked for, and told in one message.

First what shows in seconds: configuration, headers, the first rows of each source. Then every row of what is trained on is rendered
and kept, for sft, reward and judge to read (ADR 0022).
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from rlhf_api.resource.compute import Compute, Optimization
from rlhf_api.resource.data import PromptSource
from rlhf_api.resource.evaluation import benchmarks_read_by
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import ConfigMapKey, Storage
from rlhf_api.stage import PreflightWork, PromptIdentity, StageResult
from rlhf_api.words import STAGE_ARTIFACT, StageName
from rlhf_operator.core.chain.chain import Chain
from rlhf_operator.core.chain.history import History, StageRecord
from rlhf_operator.core.chain.references import (
    JUDGE,
    LM_EVAL,
    PROMPT_IDENTITY,
    REWARD,
    SFT_DEEPSPEED,
    TRAIN_DEEPSPEED,
    LabelerTraining,
    external_references,
    labeler_trainings,
    rule_references,
    text_references,
)
from rlhf_operator.core.plan.planner import Planner, RunStage
from rlhf_store import StoreError, find_artifact
from rlhf_trainer.data import sources
from rlhf_trainer.data.held_out import HeldOutPrompts
from rlhf_trainer.data.preferences import Limits
from rlhf_trainer.data.prompts import PromptSets, load_prompt_sets
from rlhf_trainer.evaluation.benchmarks import tasks_revision
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.preflight import data, judges, labelers, models, rules
from rlhf_trainer.preflight import held_out as held_outs
from rlhf_trainer.preflight.lineage import independent_judge
from rlhf_trainer.preflight.machine import shortages, without_client
from rlhf_trainer.preflight.preparation import Vocabularies, preparations
from rlhf_trainer.preflight.sampler import sampler
from rlhf_trainer.runtime.config_maps import read_config_map_key, revision_of
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.errors import ApplicationProblem, ConfigurationProblem, StageError, Transient
from rlhf_trainer.runtime.failures import from_exception, from_store_error
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.result import result_of
from rlhf_trainer.training.prepared.recipe import Recipe, whole
from rlhf_trainer.training.zero import deepspeed_config

Check = Callable[[], object]
_T = TypeVar("_T")


@dataclass
class Findings:
    """problems stop the run; warnings are told and stay in the result."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    resolved: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def require_none(self) -> None:
        """Raises ConfigurationProblem with every problem."""
        problems = list(dict.fromkeys(self.problems))
        if problems:
            for warning in dict.fromkeys(self.warnings):
                log.warning("%s", warning)
            listed = "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, start=1))
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            raise ConfigurationProblem(f"preflight found {count}:\n{listed}")


def _once(load: Callable[[], _T]) -> Callable[[], _T]:
    """What `load` answers, or the problem that it raises: what cannot be read is not read again for everyone who asks."""
    problems: list[ConfigurationProblem] = []
    cached = cache(load)

    def loaded() -> _T:
        if problems:
            raise problems[0]
        try:
            return cached()
        except ConfigurationProblem as problem:
            problems.append(problem)
            raise

    return loaded


class Loaded:
    """What several checks read: each is loaded once, by the first that asks."""

    def __init__(self, context: StageContext, spec: RLHFRunSpec, found: Findings) -> None:
        scratch, storage = context.scratch / "inputs", context.config.storage
        self.look = data.Look(scratch, storage, found.warnings)
        self.vocabulary: Callable[[], Vocabulary] = _once(partial(models.policy_vocabulary, spec, scratch, storage))
        #: Of each labeler that is trained, by its stage.
        self.trained: dict[StageName, Callable[[], Vocabulary]] = {
            trained.stage: _once(partial(_vocabulary_of, trained, spec, scratch, storage)) for trained in labeler_trainings(spec)
        }
        identify = data.rendered(self.vocabulary)
        self.prompts: Callable[[], PromptSets] = _once(
            partial(load_prompt_sets, spec.prompts, spec.iterations, scratch, storage, identify=identify)
        )
        load = _once(lambda: HeldOutPrompts(self.prompts(), identify))
        self.held_out = held_outs.HeldOut(load, spec.prompts.max_near_held_out, found.warnings, found.counts)


def _vocabulary_of(trained: LabelerTraining, spec: RLHFRunSpec, scratch: Path, storage: Storage) -> Vocabulary:
    """Of a labeler that is trained, as its stage reads it."""
    base = trained.training.base
    if trained.orders is not None:
        return labelers.pairwise_base(trained.training, spec, scratch, storage)
    if base is None:
        return models.policy_vocabulary(labelers.without_date(spec), scratch, storage, classifier=True)
    return labelers.reward_base(base, scratch, storage)


def run(context: StageContext) -> StageResult:
    """Raises ConfigurationProblem with every problem; Transient when store or hub are away, for then nothing can be said."""
    spec = RLHFRunSpec.model_validate(work_of(context, PreflightWork).spec)
    found = Findings()
    loaded = Loaded(context, spec, found)
    _try(_checks(context, spec, loaded, found), found)
    found.require_none()
    chain = _walk(context, spec, found.resolved)
    adoptable = chain.history.chain_length
    log.info("%d stages of this run lie sealed in the store already", adoptable)
    works = preparations(context, chain, Vocabularies(loaded.vocabulary, loaded.trained), loaded.held_out, loaded.look)
    _try(works, found, passed=(Transient, ApplicationProblem))
    found.require_none()
    warnings = list(dict.fromkeys(found.warnings))
    for warning in warnings:
        log.warning("%s", warning)
    return StageResult(
        stage=StageName.PREFLIGHT,
        attempt=context.config.execution.attempt,
        resolved=found.resolved,
        adoptable=adoptable,
        counts=found.counts,
        warnings=warnings,
    )


def _try(checks: Iterable[Check], found: Findings, *, passed: tuple[type[StageError], ...] = (Transient,)) -> None:
    """All of them, whatever one of them finds. `passed`: what says nothing of the manifest, and is raised as it is."""
    for check in checks:
        try:
            check()
        except StoreError as error:
            stage_error = from_store_error(error)
            if isinstance(stage_error, passed):
                raise stage_error from error
            found.problems.append(str(error))
        except Exception as error:
            if not isinstance(error, StageError):
                traceback.print_exc()
            told = from_exception(error)
            if isinstance(told, passed):
                raise told from error
            found.problems.append(str(told))


def _checks(context: StageContext, spec: RLHFRunSpec, loaded: Loaded, found: Findings) -> Iterator[Check]:
    """In the order in which a person would look, and one for each thing that may be wrong by itself."""
    scratch, storage, look = loaded.look.scratch, loaded.look.storage, loaded.look
    yield context.store.check_writable
    yield lambda: found.warnings.extend(shortages(context.scratch, context.config.execution.processes_per_node))
    yield lambda: found.warnings.extend(without_client(spec, os.environ))
    for reference in external_references(spec):

        def resolve(path: str = reference.path, target: object = reference.target) -> None:
            found.resolved[path] = sources.resolve_revision(target, storage)  # type: ignore[arg-type]

        yield resolve
    for text in text_references(spec):

        def read(path: str = text.path, key: ConfigMapKey = text.key) -> None:
            found.resolved[path] = revision_of(read_config_map_key(key, path))

        yield read
    found.resolved[PROMPT_IDENTITY] = PromptIdentity.RENDERED
    yield lambda: models.policy(spec, scratch, storage, found.warnings)
    yield lambda: models.positions(spec, scratch, storage)
    yield lambda: sampler(spec, scratch, storage, found.warnings, allow_cpu=context.config.execution.allow_cpu)
    yield lambda: models.reference(spec, scratch, storage)
    for path, labeler in ((REWARD, spec.reward), (JUDGE, spec.evaluate.judge)):
        yield partial(labelers.labeler, labeler, loaded.prompts, scratch, storage, found.warnings)
        yield partial(rules.declared, labeler, path, loaded.prompts)
        yield partial(judges.answers, labeler, path, spec.seed, found.warnings)
        allow_cpu = context.config.execution.allow_cpu
        yield partial(judges.own_model, spec, path, loaded.prompts, scratch, storage, found.warnings, allow_cpu=allow_cpu)
    yield partial(judges.cost, spec, loaded.prompts, found.counts, found.warnings)
    yield partial(labelers.questions, spec, loaded.prompts, found.counts, found.warnings)
    for scored_by in rule_references(spec):
        yield partial(rules.rule, scored_by, loaded.prompts, found.resolved)
    for reference in external_references(spec):
        if isinstance(reference.target, PromptSource):
            yield partial(data.prompt_source, reference.target, loaded.vocabulary, look)
    yield partial(data.prompts, spec, loaded.vocabulary, loaded.prompts, look, found.counts)
    yield lambda: _with_tools(loaded.prompts().counts, found)
    yield partial(held_outs.prompts, spec.prompts.source.uri, loaded.prompts, loaded.held_out)
    with_tools = found.resolved[PROMPT_IDENTITY] == PromptIdentity.RENDERED_WITH_TOOLS
    if spec.sft is not None:
        recipe = Recipe(StageName.SFT, spec.sft.data, None, whole(spec.sft.max_length), spec.seed)
        for source in spec.sft.data:
            yield partial(data.first_rows, recipe, source, loaded.vocabulary, look, with_tools)
    for trained in labeler_trainings(spec):
        training, vocabulary = trained.training, loaded.trained[trained.stage]
        yield vocabulary
        if trained.orders is not None:
            yield partial(_require_comparable, training.base or spec.policy.model, vocabulary, loaded.prompts)
        elif training.base is not None:
            yield partial(_require_readable, training.base, vocabulary, loaded.prompts)
        limits, orders = whole(training.max_length), trained.orders
        recipe = Recipe(trained.stage, training.data, None, limits, spec.seed, training.min_margin, orders=orders)
        own = training.held_out.data if training.held_out is not None else None
        for source in [*training.data, *([own] if own is not None else [])]:
            yield partial(data.first_rows, recipe, source, vocabulary, look, with_tools)
    train = spec.train
    recipe = Recipe(
        StageName.TRAIN, train.data.offline, None, Limits.of(train), spec.seed, with_scores=train.loss.type.needs_scores
    )
    for source in train.data.offline:
        yield partial(data.first_rows, recipe, source, loaded.vocabulary, look, with_tools)
    for field_, compute, optimization in _computes(spec):
        yield partial(deepspeed_config, compute.deepspeed, spec.policy.dtype, optimization, field_)
    if spec.evaluate.lm_eval.tasks:
        gated = benchmarks_read_by(spec.gates)
        yield lambda: found.resolved.update({LM_EVAL: tasks_revision(spec.evaluate.lm_eval.tasks, gated=gated)})
    yield lambda: found.warnings.extend(data.lengths(spec))
    yield lambda: independent_judge(spec, scratch, storage, found.warnings)


def _require_readable(base: ModelRef, vocabulary: Callable[[], Vocabulary], prompts: Callable[[], PromptSets]) -> None:
    labelers.require_readable(base, vocabulary().chat, prompts)


def _require_comparable(base: ModelRef, vocabulary: Callable[[], Vocabulary], prompts: Callable[[], PromptSets]) -> None:
    labelers.require_comparable(base, vocabulary().chat, prompts)


def _computes(spec: RLHFRunSpec) -> Iterator[tuple[str, Compute, Optimization]]:
    """Of each training, its DeepSpeed's field, and what its configuration depends on."""
    if spec.sft is not None:
        yield SFT_DEEPSPEED, spec.sft.compute, spec.sft.optimization
    for trained in labeler_trainings(spec):
        yield trained.deepspeed, trained.training.compute, trained.training.optimization
    yield TRAIN_DEEPSPEED, spec.train.compute, spec.train.optimization


def _with_tools(counts: Mapping[str, int], found: Findings) -> None:
    """A run whose prompts have none is the run that it was before tools were sampled, and finds what that has sealed."""
    if with_tools := counts.get("withTools"):
        found.counts["promptsWithTools"] = with_tools
        found.resolved[PROMPT_IDENTITY] = PromptIdentity.RENDERED_WITH_TOOLS


def _walk(context: StageContext, spec: RLHFRunSpec, resolved: dict[str, str]) -> Chain:
    """The stages of the chain, in order, that are sealed in the store: by this run, or by another with the same beginning."""
    planner = Planner(context.config.run, spec, resolved)
    history = History((StageRecord(None, StageName.PREFLIGHT),))
    while isinstance(step := planner.next_step(history), RunStage) and step.config.stage in STAGE_ARTIFACT:
        sealed = find_artifact(context.store, STAGE_ARTIFACT[step.config.stage], step.config.fingerprint)
        if sealed is None:
            break
        history = history.with_result(step.config, result_of(context.store, step.config, sealed, found=True))
    return planner.chain(history)
