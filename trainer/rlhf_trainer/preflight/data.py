"""Prompts, demonstrations and preferences are there, are what they are taken for, can be rendered, and are short enough."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_api.resource.data import DataSource, PromptSource
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import PromptIdentity
from rlhf_trainer.data import prompts as prompt_sets
from rlhf_trainer.data import sources
from rlhf_trainer.data.messages import Message
from rlhf_trainer.data.rows import Tally, shown
from rlhf_trainer.models.questions import identify_by, listed
from rlhf_trainer.models.templates import TemplateRefusal
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.training.prepared.prepare import Preprocessor
from rlhf_trainer.training.prepared.recipe import Recipe

#: Loads the vocabulary that a source is rendered under. Raises ConfigurationProblem.
Load = Callable[[], Vocabulary]
#: As glaive's sets have them; what is read in turns is Anthropic's, of Human and Assistant.
_TRANSCRIPT = re.compile(r"\s*(?:SYSTEM|USER): .*\n\s*ASSISTANT: ", re.DOTALL)
#: Rows of a source that are rendered and tokenised before anything else is done.
RENDERED = 1000


@dataclass(frozen=True)
class Look:
    """Where sources are read to and from, and where it goes what a person should know of them."""

    scratch: Path
    storage: Storage
    warnings: list[str]


def rendered(load: Load) -> prompt_sets.Identify:
    """By what the policy reads. Its vocabulary is loaded when the first row asks for it: one that is not there hides no column."""
    return lambda messages, tools=None: identify_by(PromptIdentity.RENDERED_WITH_TOOLS, load().chat)(messages, tools)


def prompt_source(source: PromptSource, load: Load, look: Look) -> None:
    """Every row is a prompt that the policy can be asked, or is counted. Raises ConfigurationProblem, also for transcripts."""
    found, tally = prompt_sets.read_prompts(source, look.scratch, look.storage, rendered(load))
    tell(tally, look)
    transcripts = [prompt for prompt in found if _TRANSCRIPT.match(prompt.messages[-1]["content"])]
    if len(transcripts) > source.max_unusable_rows * tally.rows:
        first = transcripts[0]
        raise ConfigurationProblem(
            f"{source.uri}: {len(transcripts)} of {tally.rows} rows are transcripts of USER and ASSISTANT, which would be asked "
            f"as one text of the user (the first, {first.where}: {shown(first.messages[-1]['content'])}). Write their turns as a "
            "list of role and content, and functions into a column tools."
        )


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
    named += [("test", sets.test, [])] if sets.test else []
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
        for messages in asked[1:]:
            if prompt.tools and (lost := vocabulary.chat.tools_left_out(messages, prompt.tools)):
                raise TemplateRefusal(f"the chat template leaves out {listed(lost)} of its tools. Set policy.chatTemplate.")
        return max(len(vocabulary.chat.prompt(messages, prompt.tools)) for messages in asked)
    except TemplateRefusal as refusal:
        told = "with a systemPrompt of sample.mixture before it" if systems else "as it stands"
        raise ConfigurationProblem(f"{prompt.where}, {told}: {refusal}") from refusal


def first_rows(recipe: Recipe, source: DataSource, load: Load, look: Look, with_tools: bool = False) -> None:
    """What the layout of a data set is, and what the template does to its first rows; all are looked at when they are prepared.

    `with_tools`: the prompts of the run have tools.

    Raises ConfigurationProblem.
    """
    rows = sources.open_rows(source, look.scratch, look.storage)
    Preprocessor(recipe, load(), None, with_tools=with_tools).try_first(source, rows, RENDERED)


def tell(tally: Tally, look: Look) -> None:
    """What of a source is left out, and what nobody reads."""
    uri = tally.source.uri
    if told := tally.told():
        look.warnings.append(told)
    if tally.columns_not_read:
        look.warnings.append(f"{uri}: columns not read: {', '.join(map(repr, tally.columns_not_read))}.")
    if tally.nulls:
        look.warnings.append(
            f"{uri}: fields of null in the tools of {tally.nulls} rows are taken for absent, since Parquet gives every object of a "
            "column the fields of all others. Where null is meant, write the column tools as JSON text."
        )
    if tally.unread:
        look.warnings.append(f"{uri}: its messages have {', '.join(sorted(tally.unread))}, which nobody reads.")


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
