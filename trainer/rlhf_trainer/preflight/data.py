"""Prompts, demonstrations and preferences are there, and short enough."""

from __future__ import annotations

from pathlib import Path

from rlhf_api.resource.data import DataSource
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import Storage
from rlhf_trainer.data import prompts as prompt_sets
from rlhf_trainer.data import sources
from rlhf_trainer.data.messages import as_messages
from rlhf_trainer.models import chat
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .models import policy_vocabulary


def prompts(spec: RLHFRunSpec, scratch: Path, storage: Storage, counts: dict[str, int], warnings: list[str]) -> None:
    """Enough prompts for T iterations, and for validation, that are short enough. Fails only where an iteration would have none."""
    sets = prompt_sets.load_prompt_sets(spec.prompts, spec.iterations, scratch, storage)
    for number, part in enumerate(sets.training, start=1):
        counts[f"prompts/{number}"] = len(part)
        if not part:
            raise ConfigurationProblem(
                f"Nothing is left of prompts.source for iteration {number} ({sets.counts['rows']} rows, "
                f"{sets.counts['duplicates']} duplicates, {sets.counts['validation']} held out for validation, "
                f"{sets.counts['test']} for test). Bring more prompts, or lower prompts.perIteration, the hold-outs or iterations."
            )
        if len(part) < spec.prompts.per_iteration:
            warnings.append(
                f"Iteration {number} has {len(part)} prompts; prompts.perIteration asks for {spec.prompts.per_iteration}."
            )
    if not sets.validation:
        raise ConfigurationProblem(
            "prompts.validation is empty: without it no iterate can be selected and no gate can look at anything."
        )
    counts["validation"], counts["test"] = len(sets.validation), len(sets.test)
    _prompt_lengths(spec, sets, policy_vocabulary(spec, scratch, storage), counts, warnings)


def _prompt_lengths(
    spec: RLHFRunSpec, sets: prompt_sets.PromptSets, vocabulary: Vocabulary, counts: dict[str, int], warnings: list[str]
) -> None:
    """Longer ones are left out by sample and evaluate, which count them."""
    limit = spec.train.max_prompt_length
    named = [("validation", sets.validation)]
    named += [(f"iteration {number}", part) for number, part in enumerate(sets.training, start=1)]
    too_long = 0
    for name, part in named:
        longer = sum(len(chat.encode_prompt(vocabulary.tokenizer, prompt.messages)) > limit for prompt in part)
        if longer == len(part):
            raise ConfigurationProblem(
                f"All {longer} prompts of {name} are longer than train.maxPromptLength, {limit} tokens with the chat template. "
                "Raise it, and train.maxLength with it, or bring shorter prompts."
            )
        too_long += longer
    if too_long:
        counts["promptsTooLong"] = too_long
        warnings.append(
            f"{too_long} of {sum(len(part) for _, part in named)} prompts are longer than train.maxPromptLength, {limit} tokens "
            "with the chat template: they are left out."
        )


def demonstrations(source: DataSource, scratch: Path, storage: Storage) -> None:
    """They are there and have their column."""
    row = sources.read_rows(source, scratch, storage)[0]
    column = source.column or "messages"
    if column not in row:
        raise ConfigurationProblem(f"{source.uri} has no column {column!r} (it has {', '.join(sorted(row))}). Set sft.data.column.")
    as_messages(row[column], f"{source.uri}: row 1, column {column}")


def preferences(source: DataSource, scratch: Path, storage: Storage) -> None:
    """They are there and have their columns."""
    row = sources.read_rows(source, scratch, storage)[0]
    if not {"chosen", "rejected"} <= set(row):
        raise ConfigurationProblem(f"{source.uri} needs columns chosen and rejected (it has {', '.join(sorted(row))}).")


def lengths(spec: RLHFRunSpec) -> list[str]:
    total = spec.train.max_prompt_length + spec.sample.max_new_tokens
    if total <= spec.train.max_length:
        return []
    return [
        (
            f"Responses can be longer than training reads: maxPromptLength {spec.train.max_prompt_length} "
            f"+ maxNewTokens {spec.sample.max_new_tokens} > maxLength {spec.train.max_length}. "
            f"The reward scores text that DPO will see cut ({spec.train.overlong})."
        )
    ]
