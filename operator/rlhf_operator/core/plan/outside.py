"""What trainings take from outside beside the run's own data: the policy as it came, D_off, and the prompts that none may see."""

from __future__ import annotations

from rlhf_api.resource.data import Prompts
from rlhf_api.stage import HeldOutInput, ModelInput, OfflineSet, PolicyInput, PromptIdentity
from rlhf_operator.core.chain.chain import Chain
from rlhf_operator.core.chain.references import OFFLINE_DATA, POLICY_MODEL, varies_by_iteration


def policy_from_outside(chain: Chain) -> PolicyInput:
    return chain.policy_input(ModelInput(source=chain.resolver.pin(POLICY_MODEL, chain.spec.policy.model)))


def offline_set(chain: Chain) -> OfflineSet | None:
    """None where train.data.offline names nothing."""
    train = chain.spec.train
    if not train.data.offline:
        return None
    return OfflineSet(
        policy=policy_from_outside(chain),
        data=chain.resolver.pin_all(OFFLINE_DATA, train.data.offline),
        held_out=held_out(chain),
        with_scores=train.loss.type.needs_scores,
    )


def without_answers(prompts: Prompts) -> Prompts:
    """The same prompts, of rows whose reference answers nobody reads."""
    unread = {"answer_column": None}
    update: dict[str, object] = {"source": prompts.source.model_copy(update=unread)}
    for name in ("validation", "test"):
        held = getattr(prompts, name)
        if held is not None and held.source is not None:
            update[name] = held.model_copy(update={"source": held.source.model_copy(update=unread)})
    return prompts.model_copy(update=update)


def held_out(chain: Chain, policy: PolicyInput | None = None) -> HeldOutInput | None:
    """None for a run that began before anybody looked: its artifacts are found by work without it."""
    resolver, prompts = chain.resolver, chain.spec.prompts
    if resolver.prompt_identity is PromptIdentity.MESSAGES:
        return None
    # What the iterations take of the rest, and what is right, change no hold-out, so that they change no artifact either.
    cut = without_answers(resolver.prompts(prompts)).model_copy(
        update={"per_iteration": Prompts.model_fields["per_iteration"].default}
    )
    return HeldOutInput(
        prompts=cut,
        iterations=chain.prompt_iterations if varies_by_iteration(prompts.source) else 1,
        source_revisions=resolver.source_revisions(prompts.source, chain.prompt_iterations),
        identity=resolver.prompt_identity,
        policy=policy,
    )
