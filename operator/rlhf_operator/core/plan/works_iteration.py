"""The work of iteration t: sample, [ask], label, reference, train; then pi_t is evaluated (works_run.evaluate_work)."""

from __future__ import annotations

from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.training import Start
from rlhf_api.stage import (
    AskWork,
    LabelSet,
    LabelWork,
    ModelInput,
    PolicyInput,
    PromptSlice,
    ReferenceWork,
    Sampler,
    SampleWork,
    TrainSet,
    TrainWork,
)
from rlhf_api.words import StageName
from rlhf_operator.core.chain.chain import Chain, plain_optimization
from rlhf_operator.core.chain.references import REFERENCE_MODEL, REWARD, TRAIN_DEEPSPEED

from .outside import offline_set
from .reference_cache import OFFLINE, missing_sets, reference_cache, reference_key, replayed


def sample_work(chain: Chain, iteration: int) -> SampleWork:
    spec = chain.spec
    samplers = []
    for entry in spec.sample.mixture:
        number = chain.iterates.resolve(entry.iterate, iteration)
        samplers.append(Sampler(entry=entry, iterate=number, policy=chain.policy(number)))
    return SampleWork(
        prompts=_prompt_slice(chain, iteration),
        samplers=samplers,
        completions_per_prompt=spec.sample.completions_per_prompt,
        max_new_tokens=spec.sample.max_new_tokens,
        deterministic=spec.sample.deterministic,
    )


def ask_work(chain: Chain, iteration: int) -> AskWork | None:
    """None where people are not the labeler."""
    human = chain.spec.reward.human
    if human is None:
        return None
    return AskWork(samples=chain.artifact(iteration, StageName.SAMPLE), pairs_per_prompt=human.pairs_per_prompt)


def label_work(chain: Chain, iteration: int) -> LabelWork:
    spec = chain.spec
    # How many label in parallel, and on what, is no part of the labels.
    label = spec.label.model_copy(update={"shards": 1, "parallelism": 1, "pod": None, "queue": None})
    return LabelWork(
        samples=chain.artifact(iteration, StageName.SAMPLE),
        labeler=chain.resolver.labeler(REWARD, spec.reward),
        reward_model=chain.labeler_model(spec.reward, REWARD),
        rule_revision=chain.resolver.rule_revision(REWARD, spec.reward),
        label=label,
        completions_per_prompt=spec.sample.completions_per_prompt,
        questions=chain.artifact(iteration, StageName.ASK) if spec.reward.human is not None else None,
        annotations=annotations_of(spec, iteration),
    )


def annotations_of(spec: RLHFRunSpec, iteration: int) -> str | None:
    """The digest of what people answered; None: nothing was imported yet, or nobody is asked."""
    return next((entry.digest for entry in spec.annotations if entry.iteration == iteration), None)


def reference_work(chain: Chain, iteration: int) -> ReferenceWork | None:
    """None where the loss has no reference, or every data set that train reads has its log-probs already."""
    spec = chain.spec
    if not spec.train.loss.type.needs_reference:
        return None
    missing = missing_sets(reference_cache(chain, iteration), chain, iteration)
    if not missing:
        return None
    return ReferenceWork(
        reference=_reference_policy(chain, iteration),
        data=[LabelSet(iteration=i, labels=chain.artifact(i, StageName.LABEL)) for i in missing if i != OFFLINE],
        offline=offline_set(chain) if OFFLINE in missing else None,
        max_length=spec.train.max_length,
        max_prompt_length=spec.train.max_prompt_length,
        overlong=spec.train.overlong,
    )


def train_work(chain: Chain, iteration: int) -> TrainWork:
    train = chain.spec.train
    with_reference = train.loss.type.needs_reference
    cached = reference_cache(chain, iteration + 1) if with_reference else {}
    key = reference_key(chain, iteration)
    return TrainWork(
        start=chain.policy(_start(chain, iteration)),
        reference=_reference_policy(chain, iteration) if with_reference else None,
        data=[
            TrainSet(
                iteration=number,
                labels=chain.artifact(number, StageName.LABEL),
                reference_logps=cached[key, number] if with_reference else None,
            )
            for number in replayed(chain, iteration)
        ],
        offline=offline_set(chain),
        offline_logps=cached.get((key, OFFLINE)),
        loss=train.loss,
        warm_start=train.warm_start,
        optimization=plain_optimization(train.optimization),
        max_length=train.max_length,
        max_prompt_length=train.max_prompt_length,
        overlong=train.overlong,
        deepspeed=train.compute.deepspeed,
        deepspeed_revision=chain.resolver.revision(TRAIN_DEEPSPEED),
    )


def _reference_policy(chain: Chain, iteration: int) -> PolicyInput:
    key = reference_key(chain, iteration)
    if key is not None:
        return chain.policy(key)
    model = chain.spec.reference.model or chain.spec.policy.model
    return chain.policy_input(ModelInput(source=chain.resolver.pin(REFERENCE_MODEL, model)))


def _start(chain: Chain, iteration: int) -> int:
    match chain.spec.train.start:
        case Start.LATEST:
            return chain.iterates.latest(iteration)
        case Start.INITIAL:
            return 0
        case Start.BEST:
            return chain.iterates.best(iteration)


def _prompt_slice(chain: Chain, iteration: int) -> PromptSlice:
    prompts = chain.spec.prompts
    return PromptSlice(
        iterations=chain.prompt_iterations,
        iteration=iteration,
        prompts=chain.resolver.prompts(prompts),
        source_revisions=chain.resolver.source_revisions(prompts.source, chain.prompt_iterations),
        max_prompt_length=chain.spec.train.max_prompt_length,
        identity=chain.resolver.prompt_identity,
    )
