"""preflight: everything that would stop the run later, found before a GPU is asked for, and told in one message."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial

from rlhf_api.resource.data import PromptSource
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.stage import PreflightWork, PromptIdentity, StageResult
from rlhf_api.words import STAGE_ARTIFACT, StageName
from rlhf_operator.core.chain.history import History, StageRecord
from rlhf_operator.core.chain.references import PROMPT_IDENTITY, external_references, rule_references
from rlhf_operator.core.plan.planner import Planner, RunStage
from rlhf_store import StoreError, find_artifact
from rlhf_trainer.data import sources
from rlhf_trainer.data.prompts import HeldOutPrompts, load_prompt_sets
from rlhf_trainer.preflight import data, labelers, models, rules
from rlhf_trainer.preflight.lineage import independent_judge
from rlhf_trainer.preflight.machine import shortages
from rlhf_trainer.preflight.sampler import sampler
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.errors import ConfigurationProblem, StageError, Transient
from rlhf_trainer.runtime.failures import from_exception, from_store_error
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.result import result_of


@dataclass
class Findings:
    """problems stop the run; warnings are told and stay in the result."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    resolved: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def run(context: StageContext) -> StageResult:
    """Raises ConfigurationProblem with every problem; Transient when store or hub are away, for then nothing can be said."""
    work = work_of(context, PreflightWork)
    spec = RLHFRunSpec.model_validate(work.spec)
    found = Findings()
    for check in _checks(context, spec, found):
        try:
            check()
        except StoreError as error:
            stage_error = from_store_error(error)
            if isinstance(stage_error, Transient):
                raise stage_error from error
            found.problems.append(str(error))
        except Transient:
            raise
        except Exception as error:
            if not isinstance(error, StageError):
                traceback.print_exc()
            found.problems.append(str(from_exception(error)))
    problems = list(dict.fromkeys(found.problems))
    found.warnings = list(dict.fromkeys(found.warnings))
    for warning in found.warnings:
        log.warning("%s", warning)
    if problems:
        listed = "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, start=1))
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigurationProblem(f"preflight found {count}:\n{listed}")
    adoptable = _walk(context, spec, found.resolved)
    log.info("%d stages of this run lie sealed in the store already", adoptable)
    return StageResult(
        stage=StageName.PREFLIGHT,
        attempt=context.config.execution.attempt,
        resolved=found.resolved,
        adoptable=adoptable,
        counts=found.counts,
        warnings=found.warnings,
    )


def _checks(context: StageContext, spec: RLHFRunSpec, found: Findings) -> Iterator[Callable[[], object]]:
    """In the order in which a person would look, and one for each thing that may be wrong by itself."""
    scratch, storage = context.scratch / "inputs", context.config.storage
    look = data.Look(scratch, storage, found.warnings)
    yield context.store.check_writable
    yield lambda: found.warnings.extend(shortages(context.scratch, context.config.execution.processes_per_node))
    for reference in external_references(spec):

        def resolve(path: str = reference.path, target: object = reference.target) -> None:
            found.resolved[path] = sources.resolve_revision(target, storage)  # type: ignore[arg-type]

        yield resolve
    found.resolved[PROMPT_IDENTITY] = PromptIdentity.RENDERED
    vocabulary = cache(partial(models.policy_vocabulary, spec, scratch, storage))
    yield lambda: models.policy(spec, scratch, storage, found.warnings)
    yield lambda: models.positions(spec, scratch, storage)
    yield lambda: sampler(spec, scratch, storage, allow_cpu=context.config.execution.allow_cpu)
    yield lambda: models.reference(spec, scratch, storage)
    identify = data.rendered(vocabulary)
    prompt_sets = cache(partial(load_prompt_sets, spec.prompts, spec.iterations, scratch, storage, identify=identify))
    held_out = cache(lambda: HeldOutPrompts(prompt_sets(), identify))
    for labeler in (spec.reward, spec.evaluate.judge):
        yield partial(labelers.labeler, labeler, prompt_sets, scratch, storage, found.warnings)
    for scored_by in rule_references(spec):
        yield partial(rules.rule, scored_by, prompt_sets, found.resolved)
    for reference in external_references(spec):
        if isinstance(reference.target, PromptSource):
            yield partial(data.prompt_source, reference.target, vocabulary, look)
    yield partial(data.prompts, spec, vocabulary, prompt_sets, look, found.counts)
    if spec.sft is not None:
        for source in spec.sft.data:
            yield partial(data.demonstrations, source, spec.sft.max_length, vocabulary, held_out, look)
    training = spec.reward.bradley_terry and spec.reward.bradley_terry.train
    if training:
        own = cache(partial(labelers.reward_base, training.base, scratch, storage)) if training.base is not None else vocabulary
        yield own
        if training.base is not None:
            base = training.base
            yield lambda: labelers.require_readable(base, own().chat, prompt_sets)
        for source in training.data:
            yield partial(data.preferences, source, training.max_length, own, held_out, look)
    yield lambda: found.warnings.extend(data.lengths(spec))
    yield lambda: independent_judge(spec, scratch, storage, found.warnings)


def _walk(context: StageContext, spec: RLHFRunSpec, resolved: dict[str, str]) -> int:
    """How many stages of the chain, in order, are sealed in the store: by this run, or by another with the same beginning."""
    planner = Planner(context.config.run, spec, resolved)
    history = History((StageRecord(None, StageName.PREFLIGHT),))
    adoptable = 0
    while isinstance(step := planner.next_step(history), RunStage) and step.config.stage in STAGE_ARTIFACT:
        sealed = find_artifact(context.store, STAGE_ARTIFACT[step.config.stage], step.config.fingerprint)
        if sealed is None:
            break
        history = history.with_result(step.config, result_of(step.config, sealed, found=True))
        adoptable += 1
    return adoptable
