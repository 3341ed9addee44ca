"""Prompts, demonstrations and preferences are there, are what they are taken for, can be rendered, and are short enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_api.resource.data import DataSource, PromptSource
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import PromptIdentity
from rlhf_trainer.data import prompts as prompt_sets
from rlhf_trainer.data import sources
from rlhf_trainer.data.layouts import read_demonstrations, read_preferences
from rlhf_trainer.data.messages import Message
from rlhf_trainer.data.rows import Tally
from rlhf_trainer.models.encoding import encode_demonstrations, encode_preferences
from rlhf_trainer.models.questions import identify_by
from rlhf_trainer.models.templates import TemplateRefusal
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem

#: Loads the vocabulary that a source is rendered under. Raises ConfigurationProblem.
Load = Callable[[], Vocabulary]
LoadHeldOut = Callable[[], prompt_sets.HeldOutPrompts]
#: Rows of a source that are rendered and tokenised here; all of them are read.
RENDERED = 1000


@dataclass(frozen=True)
class Look:
    """Where sources are read to and from, and where it goes what a person should know of them."""

    scratch: Path
    storage: Storage
    warnings: list[str]


def rendered(load: Load) -> prompt_sets.Identify:
    """By what the policy reads. Its vocabulary is loaded when the first row asks for it: one that is not there hides no column."""
    return lambda messages: identify_by(PromptIdentity.RENDERED, load().chat)(messages)


def prompt_source(source: PromptSource, load: Load, look: Look) -> None:
    """Every row is a prompt that the policy can be asked, or is counted."""
    _, tally = prompt_sets.read_prompts(source, look.scratch, look.storage, rendered(load))
    _tell(tally, look)


def prompts(
    spec: RLHFRunSpec, load: Load, load_sets: Callable[[], prompt_sets.PromptSets], look: Look, counts: dict[str, int]
) -> None:
    """Enough prompts for T iterations, and for validation, that are short enough. Fails only where an iteration would have none."""
    vocabulary, warnings = load(), look.warnings
    sets = load_sets()
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
    _prompt_lengths(spec, sets, vocabulary, counts, warnings)


def _prompt_lengths(
    spec: RLHFRunSpec, sets: prompt_sets.PromptSets, vocabulary: Vocabulary, counts: dict[str, int], warnings: list[str]
) -> None:
    """Longer ones are left out by sample and evaluate, which count them. The mixture's system prompts are for sampling alone."""
    limit = spec.train.max_prompt_length
    systems = [entry.system_prompt for entry in spec.sample.mixture if entry.system_prompt is not None]
    named: list[tuple[str, Sequence[prompt_sets.Prompt], list[str]]] = [("validation", sets.validation, [])]
    named += [(f"iteration {number}", part, systems) for number, part in enumerate(sets.training, start=1)]
    too_long = 0
    for name, part, before in named:
        longer = sum(_longest(vocabulary, prompt, before) > limit for prompt in part)
        if longer == len(part):
            told = " and the longest systemPrompt of sample.mixture" if before else ""
            raise ConfigurationProblem(
                f"All {longer} prompts of {name} are longer than train.maxPromptLength, {limit} tokens with the chat template{told}"
                ". Raise it, and train.maxLength with it, or bring shorter prompts."
            )
        too_long += longer
    if too_long:
        counts["promptsTooLong"] = too_long
        warnings.append(
            f"{too_long} of {sum(len(part) for _, part, _ in named)} prompts are longer than train.maxPromptLength, {limit} tokens "
            "with the chat template: they are left out."
        )


def _longest(vocabulary: Vocabulary, prompt: prompt_sets.Prompt, systems: list[str]) -> int:
    asked: list[tuple[Message, ...]] = [prompt.messages]
    asked += [({"role": "system", "content": text}, *prompt.messages) for text in systems]
    try:
        return max(len(vocabulary.chat.prompt(messages)) for messages in asked)
    except TemplateRefusal as refusal:
        told = "with a systemPrompt of sample.mixture before it" if systems else "as it stands"
        raise ConfigurationProblem(f"{prompt.where}, {told}: {refusal}") from refusal


def demonstrations(source: DataSource, max_length: int, load: Load, held_out: LoadHeldOut, look: Look) -> None:
    """Every row is read; the first are rendered, so that what the template does to them is known."""
    items, tally = read_demonstrations(source, sources.read_rows(source, look.scratch, look.storage), "sft.data")
    tally.require_usable()
    counts: dict[str, int] = {}
    encode_demonstrations(items[:RENDERED], tally, load(), max_length, counts, held_out())
    _tell(tally, look, counts)
    _tell_held_out(source, counts, look)


def preferences(source: DataSource, max_length: int, load: Load, held_out: LoadHeldOut, look: Look) -> None:
    """Every row is read; the first are rendered, so that what the template does to them is known."""
    items, tally = read_preferences(source, sources.read_rows(source, look.scratch, look.storage), "reward.bradleyTerry.train.data")
    tally.require_usable()
    counts: dict[str, int] = {}
    encode_preferences(items[:RENDERED], tally, load(), max_length, 0.0, counts, held_out())
    _tell(tally, look, counts)
    _tell_held_out(source, counts, look)


def _tell_held_out(source: DataSource, counts: dict[str, int], look: Look) -> None:
    same, near = counts.get("heldOut", 0), counts.get("nearHeldOut", 0)
    if same:
        look.warnings.append(
            f"{source.uri}: {same} of its first {RENDERED} rows answer prompts of validation or test; they are left out."
        )
    if near:
        look.warnings.append(
            f"{source.uri}: {near} of its first {RENDERED} rows answer prompts that have the words of one of validation or test, "
            "written otherwise. They are trained on; remove them if they are the same question."
        )


def _tell(tally: Tally, look: Look, counts: Mapping[str, int] | None = None) -> None:
    uri = tally.source.uri
    if told := tally.told():
        look.warnings.append(told)
    if tally.unread:
        look.warnings.append(f"{uri}: its messages have {', '.join(sorted(tally.unread))}, which nobody reads.")
    for name, count in sorted((counts or {}).items()):
        if name.startswith("notRendered/"):
            field = name.removeprefix("notRendered/")
            look.warnings.append(f"{uri}: the chat template leaves out {field}, of {count} of the first {RENDERED} rows.")


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
