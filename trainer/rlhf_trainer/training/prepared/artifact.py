"""The tokens artifact: made once, by preflight, before a GPU is asked for; by the stage that trains, where it is not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rlhf_api.stage import ArtifactRef, OfflineSet
from rlhf_api.words import ArtifactKind
from rlhf_store import ArtifactWriter, Sealed, StoreError, artifact_folder, find_artifact, open_artifact
from rlhf_trainer.data.held_out import HeldOutPrompts
from rlhf_trainer.data.preferences import Limits
from rlhf_trainer.data.sources import fetch_without_weights, open_rows
from rlhf_trainer.models.questions import held_out_prompts
from rlhf_trainer.models.vocabulary import Vocabulary, vocabulary_of
from rlhf_trainer.runtime.context import StageContext
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.narrow import present
from rlhf_trainer.runtime.result import libraries

from .prepare import Preparation, Preprocessor
from .recipe import Recipe
from .selection import CANDIDATES_SUFFIX, HELD_OUT_SUFFIX

#: Of the artifact.
EXAMPLES_FILE, HELD_OUT_FILE = "examples.arrow", "held-out.arrow"
LoadHeldOut = Callable[[], HeldOutPrompts | None]


@dataclass(frozen=True)
class Prepared:
    """A file of examples on this machine. ref: of its artifact; None where something that it is made from may change unseen."""

    file: Path
    examples: int
    counts: Mapping[str, int]
    ref: ArtifactRef | None
    held_out: Path | None = None
    """Pairs that a reward model is measured by."""


def find_prepared(context: StageContext, recipe: Recipe, vocabulary: Vocabulary) -> Sealed | None:
    """None also where somebody has removed the file, and its manifest not."""
    fingerprint = recipe.fingerprint(vocabulary)
    found = None if fingerprint is None else find_artifact(context.store, ArtifactKind.TOKENS, fingerprint)
    entry = None if found is None else found.manifest.file(EXAMPLES_FILE)
    if found is None or entry is None:
        return None
    folder = artifact_folder(ArtifactKind.TOKENS, found.ref.fingerprint)
    return found if context.store.head(f"{folder}/{entry.key}") is not None else None


def prepared(context: StageContext, recipe: Recipe, vocabulary: Vocabulary, held_out: LoadHeldOut) -> Prepared:
    """From the store; else made now."""
    try:
        if (found := find_prepared(context, recipe, vocabulary)) is not None:
            folder = open_artifact(context.store, found.ref).cached(context.scratch / "inputs")
            held = folder / HELD_OUT_FILE if recipe.held_out_pairs is not None else None
            return Prepared(folder / EXAMPLES_FILE, found.manifest.rows or 0, found.manifest.counts, found.ref, held)
    except StoreError as error:
        if error.transient:
            raise
        # Removed this moment, or damaged: what it is made from is there, and the same bytes take its place.
        log.warning("%s. The rows are prepared anew.", error)
    return make(context, recipe, vocabulary, held_out)[0]


def prepared_offline(context: StageContext, offline: OfflineSet, limits: Limits) -> Prepared:
    """D_off: equal examples for the stage that computes its reference log-probs, and the one that trains on them."""
    inputs, storage = context.scratch / "inputs", context.config.storage
    source = present(offline.policy.model.source, "the policy as it came")
    vocabulary = vocabulary_of(offline.policy, fetch_without_weights(source, inputs, storage))
    recipe = Recipe.of_offline(offline, limits, context.config.seed)
    return prepared(context, recipe, vocabulary, lambda: held_out_prompts(context, offline.held_out, vocabulary))


def make(context: StageContext, recipe: Recipe, vocabulary: Vocabulary, held_out: LoadHeldOut) -> tuple[Prepared, Preparation]:
    """And seals them, if there are any. Raises ConfigurationProblem for data that cannot be trained on."""
    log.info("%s: rows are rendered and tokenised", recipe.field)
    file = context.scratch / f"{recipe.stage}-{EXAMPLES_FILE}"
    file.parent.mkdir(parents=True, exist_ok=True)
    sets = [(source, open_rows(source, context.scratch / "inputs", context.config.storage)) for source in recipe.sources]
    try:
        found = Preprocessor(recipe, vocabulary, held_out()).prepare(sets, file, context.progress)
    except BaseException:
        file.unlink(missing_ok=True)
        for name in (CANDIDATES_SUFFIX, HELD_OUT_SUFFIX):
            file.with_suffix(name).unlink(missing_ok=True)
        raise
    fingerprint = recipe.fingerprint(vocabulary)
    ref = None
    if fingerprint is not None and found.examples:
        writer = ArtifactWriter(context.store, ArtifactKind.TOKENS, fingerprint)
        writer.add_file(file, EXAMPLES_FILE)
        if found.held_out is not None:
            writer.add_file(found.held_out, HELD_OUT_FILE)
        # Of the stage that reads it, whoever makes it: equal work has equal manifests.
        sealed = writer.seal(
            stage=recipe.stage,
            config=recipe.to_wire(vocabulary),
            rows=found.examples,
            counts=found.counts,
            libraries=libraries("tokenizers", "transformers"),
        )
        ref = sealed.ref
    return Prepared(file, found.examples, found.counts, ref, found.held_out), found
