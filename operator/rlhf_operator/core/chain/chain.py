"""What the work of every stage is made from: the spec with its revisions pinned, and the artifacts and iterates known so far."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from rlhf_api.resource.compute import Optimization
from rlhf_api.resource.labeler import Labeler
from rlhf_api.resource.model import ChatTemplate
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.stage import ArtifactRef, ModelInput, PolicyInput
from rlhf_api.words import StageName

from .history import History
from .iterates import Iterates, iterates
from .references import CHAT_TEMPLATE, POLICY_MODEL, TRAINED_BY, Resolver, labeler_model


class MissingArtifactError(LookupError):
    """The plan asked for an artifact of a stage that has not run: an error of ours, never of a manifest."""


@dataclass(frozen=True)
class Chain:
    spec: RLHFRunSpec
    resolver: Resolver
    history: History
    prompt_iterations: int
    """T for the hold-outs: what it was when the run started."""

    @cached_property
    def iterates(self) -> Iterates:
        return iterates(self.spec, self.history)

    def artifact(self, iteration: int | None, stage: StageName) -> ArtifactRef:
        found = self.history.artifact(iteration, stage)
        if found is None:
            where = "the run" if iteration is None else f"iteration {iteration}"
            raise MissingArtifactError(f"stage {stage} of {where} has no artifact yet")
        return found

    def iterate_model(self, number: int) -> ModelInput:
        """pi_k: what iteration k trained; pi_0: what sft trained, else policy.model."""
        if number > 0:
            return ModelInput(artifact=self.artifact(number, StageName.TRAIN))
        if self.spec.sft is not None:
            return ModelInput(artifact=self.artifact(None, StageName.SFT))
        return ModelInput(source=self.resolver.pin(POLICY_MODEL, self.spec.policy.model))

    def policy(self, number: int) -> PolicyInput:
        return self.policy_input(self.iterate_model(number))

    def policy_input(self, model: ModelInput) -> PolicyInput:
        """Artifacts carry their chat template; a model from outside gets the manifest's. The date is nowhere else."""
        policy = self.spec.policy
        template = policy.chat_template
        if template is not None and model.artifact is not None:
            template = ChatTemplate(date=template.date) if template.date is not None else None
        in_config_map = template is not None and template.config_map_key_ref is not None
        return PolicyInput(
            model=model,
            dtype=policy.dtype,
            chat_template=template,
            template_revision=self.resolver.revision(CHAT_TEMPLATE) if in_config_map else None,
            stop_token_ids=policy.stop_token_ids,
        )

    def labeler_model(self, labeler: Labeler, path: str) -> ModelInput | None:
        """The model that a labeler scores with; None for a rule. `path` says whose it is: REWARD or JUDGE."""
        if labeler.training is not None:
            return ModelInput(artifact=self.artifact(None, TRAINED_BY[path]))
        found = labeler_model(labeler, path)
        return None if found is None else ModelInput(source=self.resolver.pin(*found))


def plain_optimization(optimization: Optimization) -> Optimization:
    """As the API's base type, with gradient checkpointing out: it changes memory, not the result, so it is in Execution."""
    fields = optimization.model_dump(exclude={"gradient_checkpointing"})
    return Optimization.model_validate(fields)
