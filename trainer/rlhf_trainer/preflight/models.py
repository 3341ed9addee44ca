"""Policy and reference: their class, template, positions and vocabulary."""

from __future__ import annotations

from pathlib import Path

from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import Storage
from rlhf_trainer.data import sources
from rlhf_trainer.models.templates import DATE
from rlhf_trainer.models.vocabulary import Vocabulary, load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .configuration import read_config
from .weights import require_architecture, require_ids_within


def policy(spec: RLHFRunSpec, scratch: Path, storage: Storage, warnings: list[str]) -> None:
    """Tokenizer, template, end of turn, BOS, date."""
    folder = sources.fetch_without_weights(spec.policy.model, scratch, storage)
    require_architecture(folder, spec.policy.model, "ForCausalLM")
    vocabulary = policy_vocabulary(spec, scratch, storage)
    require_ids_within(folder, spec.policy.model, vocabulary.tokenizer)
    vocabulary.chat.prompt([{"role": "user", "content": "Hello"}])
    if bos := vocabulary.unwritten_bos:
        warnings.append(
            f"The tokenizer of {spec.policy.model.uri} puts {bos!r} in front of a text, and its chat template does not write it: "
            "conversations have none, as with apply_chat_template and vLLM's chat. If the model wants it, set policy.chatTemplate "
            "to a template that begins with {{ bos_token }}."
        )
    chosen = spec.policy.chat_template
    if vocabulary.chat.template.asks_for_the_date and (chosen is None or chosen.date is None):
        warnings.append(
            f"The chat template of {spec.policy.model.uri} asks for today's date; it is told {DATE.isoformat()}, on any day. "
            "Set policy.chatTemplate.date for another."
        )


def positions(spec: RLHFRunSpec, scratch: Path, storage: Storage) -> None:
    """The sampler refuses a context that the model has no positions for."""
    folder = sources.fetch_without_weights(spec.policy.model, scratch, storage)
    limit = read_config(folder, spec.policy.model).get("max_position_embeddings")
    longest = spec.train.max_prompt_length + spec.sample.max_new_tokens
    if isinstance(limit, int) and longest > limit:
        raise ConfigurationProblem(
            f"{spec.policy.model.uri} has {limit} positions, and train.maxPromptLength {spec.train.max_prompt_length} + "
            f"sample.maxNewTokens {spec.sample.max_new_tokens} are more. Lower one of them."
        )


def reference(spec: RLHFRunSpec, scratch: Path, storage: Storage) -> None:
    """A reference of its own reads the policy's ids: it must have the policy's vocabulary."""
    if spec.reference.model is None:
        return
    folder = sources.fetch_without_weights(spec.reference.model, scratch, storage)
    require_architecture(folder, spec.reference.model, "ForCausalLM")
    own, policy = (
        load_vocabulary(place, spec.policy.chat_template, [], trust_remote_code=model.trust_remote_code).tokenizer.get_vocab()
        for place, model in (
            (folder, spec.reference.model),
            (sources.fetch_without_weights(spec.policy.model, scratch, storage), spec.policy.model),
        )
    )
    if own != policy:
        raise ConfigurationProblem(
            f"reference.model {spec.reference.model.uri} has another vocabulary than policy.model {spec.policy.model.uri}: it "
            "would score other tokens. Name a model with the same tokenizer."
        )


def policy_vocabulary(spec: RLHFRunSpec, scratch: Path, storage: Storage, *, classifier: bool = False) -> Vocabulary:
    """Of the policy as the manifest names it, before any artifact; `classifier`: of a reward model that starts from it."""
    policy = spec.policy
    folder = sources.fetch_without_weights(policy.model, scratch, storage)
    return load_vocabulary(
        folder, policy.chat_template, policy.stop_token_ids, trust_remote_code=policy.model.trust_remote_code, classifier=classifier
    )
