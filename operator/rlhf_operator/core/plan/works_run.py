"""The work of stages that a run has once: preflight, sft, reward, judge, finalize; and of what looks at an iterate, pi_0 too."""

from __future__ import annotations

from typing import TypeVar

from rlhf_api.resource.labeler import PreferenceCleaning, RewardHeldOut
from rlhf_api.stage import (
    ArtifactRef,
    BenchmarkWork,
    EvaluateWork,
    FinalizeWork,
    IterateRecord,
    JudgeWork,
    ModelInput,
    PolicyInput,
    PreflightWork,
    RewardWork,
    SftWork,
)
from rlhf_api.words import StageName
from rlhf_operator.core.chain.chain import Chain, plain_optimization
from rlhf_operator.core.chain.gates import wait_for_benchmark
from rlhf_operator.core.chain.references import (
    JUDGE,
    LM_EVAL,
    REWARD,
    SFT_DATA,
    SFT_DEEPSPEED,
    labeler_trainings,
)

from .outside import held_out, policy_from_outside
from .retention import removals

_W = TypeVar("_W", RewardWork, JudgeWork)


def preflight_work(chain: Chain) -> PreflightWork:
    return PreflightWork(spec=chain.spec.to_wire())


def sft_work(chain: Chain) -> SftWork | None:
    """None: pi_0 is policy.model."""
    sft = chain.spec.sft
    if sft is None:
        return None
    return SftWork(
        policy=policy_from_outside(chain),
        data=chain.resolver.pin_all(SFT_DATA, sft.data),
        held_out=held_out(chain),
        optimization=plain_optimization(sft.optimization),
        max_length=sft.max_length,
        deepspeed=sft.compute.deepspeed,
        deepspeed_revision=chain.resolver.revision(SFT_DEEPSPEED),
    )


def reward_work(chain: Chain) -> RewardWork | None:
    """None unless the run trains its reward."""
    return _labeler_work(chain, RewardWork, StageName.REWARD)


def judge_work(chain: Chain) -> JudgeWork | None:
    """None unless the run trains its judge."""
    return _labeler_work(chain, JudgeWork, StageName.JUDGE)


def _labeler_work(chain: Chain, kind: type[_W], stage: StageName) -> _W | None:
    """Without a base it starts from pi_0."""
    trained = next((trained for trained in labeler_trainings(chain.spec) if trained.stage is stage), None)
    if trained is None:
        return None
    train = trained.training
    if train.base is None:
        base = chain.policy(0)
        if base.chat_template is not None:
            base = base.model_copy(update={"chat_template": base.chat_template.undated})
    else:
        # Of a family of its own: the policy's template and stop ids are not its.
        model = ModelInput(source=chain.resolver.pin(trained.base, train.base))
        base = PolicyInput(model=model, dtype=chain.spec.policy.dtype)
    held_out_pairs = train.held_out
    if held_out_pairs is not None and held_out_pairs.data is not None:
        held_out_pairs = RewardHeldOut(data=chain.resolver.pin(trained.held_out, held_out_pairs.data))
    return kind(
        base=base,
        data=chain.resolver.pin_all(trained.data, train.data),
        held_out=held_out(chain, policy_from_outside(chain) if train.base is not None else None),
        optimization=plain_optimization(train.optimization),
        max_length=train.max_length,
        min_margin=train.min_margin,
        deepspeed=train.compute.deepspeed,
        deepspeed_revision=chain.resolver.revision(trained.deepspeed),
        # One that asks for nothing is none.
        cleaning=train.cleaning if train.cleaning != PreferenceCleaning() else None,
        held_out_pairs=held_out_pairs,
        orders=trained.orders,
    )


def evaluate_work(chain: Chain, iterate: int) -> EvaluateWork:
    """pi_0 is compared with nothing; pi_t with what `against` says, by their evaluations' responses."""
    spec = chain.spec
    initial_evaluation: ArtifactRef | None = None
    previous_evaluation: ArtifactRef | None = None
    if iterate > 0:
        initial_evaluation = chain.artifact(None, StageName.EVALUATE)
        latest = chain.iterates.latest(iterate)
        previous_evaluation = chain.artifact(latest or None, StageName.EVALUATE)
    return EvaluateWork(
        iterate=iterate,
        policy=chain.policy(iterate),
        initial=chain.policy(0),
        initial_evaluation=initial_evaluation,
        previous_evaluation=previous_evaluation,
        against=spec.evaluate.against,
        judge=chain.resolver.labeler(JUDGE, spec.evaluate.judge),
        judge_model=chain.labeler_model(spec.evaluate.judge, JUDGE),
        judge_rule_revision=chain.resolver.rule_revision(JUDGE, spec.evaluate.judge),
        reward=chain.resolver.labeler(REWARD, spec.reward),
        reward_model=chain.labeler_model(spec.reward, REWARD),
        reward_rule_revision=chain.resolver.rule_revision(REWARD, spec.reward),
        prompts=chain.resolver.prompts(spec.prompts),
        source_revisions=chain.resolver.source_revisions(spec.prompts.source, chain.prompt_iterations),
        prompt_identity=chain.resolver.prompt_identity,
        iterations=chain.prompt_iterations,
        sampling=spec.evaluate.sampling,
        max_new_tokens=spec.sample.max_new_tokens,
        max_prompt_length=spec.train.max_prompt_length,
    )


def benchmark_work(chain: Chain, iterate: int) -> BenchmarkWork | None:
    """None where the manifest asks for no tasks."""
    lm_eval = chain.spec.evaluate.lm_eval
    if not lm_eval.tasks:
        return None
    return BenchmarkWork(
        iterate=iterate,
        policy=chain.policy(iterate),
        lm_eval=lm_eval,
        tasks_revision=chain.resolver.revision(LM_EVAL),
    )


def gated_benchmark_work(chain: Chain, iterate: int) -> BenchmarkWork | None:
    """The same where a gate reads it, and so the chain waits for it."""
    return benchmark_work(chain, iterate) if wait_for_benchmark(chain.spec.gates, iterate) else None


def finalize_work(chain: Chain) -> FinalizeWork:
    known = chain.iterates.known
    best = chain.iterates.best(len(known))
    gone = removals(chain, best)
    records = [
        IterateRecord(
            iterate=iterate.number,
            policy=chain.iterate_model(iterate.number),
            evaluation=chain.artifact(iterate.number or None, StageName.EVALUATE),
            discarded=iterate.discarded,
        )
        for iterate in known
    ]
    return FinalizeWork(
        iterates=records,
        best=best,
        selection=chain.spec.selection,
        trained=list(gone.checkpoints),
        removed=list(gone.artifacts),
        without_masters=list(gone.masters),
    )
