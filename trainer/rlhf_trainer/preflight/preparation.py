"""What is trained on from outside is made here, on CPUs: every row is rendered before a GPU is asked for (ADR 0022)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from rlhf_api.stage import PreferenceModelWork, SftWork
from rlhf_api.words import StageName
from rlhf_operator.core.chain.chain import Chain
from rlhf_operator.core.plan.outside import offline_set
from rlhf_operator.core.plan.works_run import judge_work, reward_work, sft_work
from rlhf_trainer.data.preferences import Limits
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.context import StageContext
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.training.prepared.artifact import find_prepared, make
from rlhf_trainer.training.prepared.prepare import overlap_of
from rlhf_trainer.training.prepared.recipe import Recipe

from .data import Look, tell
from .held_out import HeldOut

Load = Callable[[], Vocabulary]


@dataclass(frozen=True)
class Vocabularies:
    """Of what sft starts from, and of what the stages do that train a labeler."""

    policy: Load
    labelers: Mapping[StageName, Load]


def preparations(
    context: StageContext, chain: Chain, vocabularies: Vocabularies, held_out: HeldOut, look: Look
) -> Iterator[Callable[[], None]]:
    """One for each training that has not been done yet, in the store's eyes."""
    # As if there were no sft: pi_0, which is not there yet, has the policy's vocabulary.
    without_sft = replace(chain, spec=chain.spec.model_copy(update={"sft": None}))
    works: list[SftWork | PreferenceModelWork | None] = [sft_work(chain), reward_work(without_sft), judge_work(without_sft)]
    for work in works:
        if work is not None and chain.history.find(None, work.stage) is None:
            load = vocabularies.labelers.get(work.stage, vocabularies.policy)
            yield partial(_prepare, context, Recipe.of(work, context.config.seed), load, held_out, look)
    offline = offline_set(chain)
    if offline is not None and chain.history.find(chain.spec.iterations, StageName.TRAIN) is None:
        recipe = Recipe.of_offline(offline, Limits.of(chain.spec.train), context.config.seed)
        yield partial(_prepare, context, recipe, vocabularies.policy, held_out, look)


def _prepare(context: StageContext, recipe: Recipe, load: Load, held_out: HeldOut, look: Look) -> None:
    vocabulary = load()
    counts: Mapping[str, int]
    if (found := find_prepared(context, recipe, vocabulary)) is not None:
        examples, counts = found.manifest.rows or 0, found.manifest.counts
        overlaps = {source.name: overlap_of(counts, source.name) for source in recipe.data}
        _tell_unusable(recipe, counts, look)
    else:
        made, preparation = make(context, recipe, vocabulary, held_out.load)
        examples, counts, overlaps = made.examples, made.counts, preparation.overlaps
        for tally in preparation.tallies.values():
            tell(tally, look)
        look.warnings.extend(f"{recipe.field}: {told}" for told in preparation.left_out)
    if not examples:
        told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise ConfigurationProblem(
            f"{recipe.field}: there is nothing to train on ({told}). Look at the lengths and at what the data holds."
        )
    _tell_counts(recipe, counts, look)
    for source in recipe.data:
        held_out.judge(source.name, source.uri, overlaps[source.name])


def _tell_unusable(recipe: Recipe, counts: Mapping[str, int], look: Look) -> None:
    kinds = {name.removeprefix("unusable/"): count for name, count in counts.items() if name.startswith("unusable/")}
    if kinds:
        told = ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))
        look.warnings.append(f"{recipe.field}: {sum(kinds.values())} rows cannot be used ({told}), as an earlier preflight found.")


def _tell_counts(recipe: Recipe, counts: Mapping[str, int], look: Look) -> None:
    what = "conversations" if recipe.stage is StageName.SFT else "pairs"
    for name, count in sorted(counts.items()):
        if name.startswith("notRendered/"):
            field = name.removeprefix("notRendered/")
            look.warnings.append(f"{recipe.field}: the chat template leaves out {field}, of {count} {what}.")
