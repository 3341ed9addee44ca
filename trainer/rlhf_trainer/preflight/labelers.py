"""Rewards and judges can be had, and their heads are trained."""

from __future__ import annotations

from pathlib import Path

from rlhf_api.resource.labeler import Labeler
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.storage import Storage
from rlhf_trainer.data import sources
from rlhf_trainer.labelers.rule import RuleLabeler
from rlhf_trainer.models import chat
from rlhf_trainer.models.vocabulary import load_vocabulary

from .weights import require_architecture, require_head, require_ids_within


def labeler(spec: Labeler, scratch: Path, storage: Storage, warnings: list[str]) -> None:
    """A rule can be imported; a reward model has a trained head, a template, and a pad token of its own."""
    if spec.rule is not None:
        RuleLabeler.load(spec.rule.entry_point)
    model = spec.bradley_terry.model if spec.bradley_terry is not None else None
    if model is None:
        return
    folder = sources.fetch_model(model, scratch, storage)
    require_architecture(folder, model, "ForSequenceClassification")
    require_head(folder, model)
    tokenizer = load_vocabulary(folder, None, [], trust_remote_code=model.trust_remote_code).tokenizer
    require_ids_within(folder, model, tokenizer)
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        warnings.append(
            f"{model.uri} pads with its EOS token. We never pad, so its scores are right here; other tools may read the wrong "
            "token."
        )


def reward_base(base: ModelRef, scratch: Path, storage: Storage) -> None:
    """A reward model's own base: its trunk is kept, so it may have any head; its template is the reward model's."""
    folder = sources.fetch_model(base, scratch, storage)
    require_architecture(folder, base, "ForCausalLM", "ForSequenceClassification")
    tokenizer = load_vocabulary(folder, None, [], trust_remote_code=base.trust_remote_code).tokenizer
    require_ids_within(folder, base, tokenizer)
    chat.encode_prompt(tokenizer, [{"role": "user", "content": "Hello"}])
