"""What examples are made from: equal recipes under equal vocabularies give equal files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_api.conventions.canonical import canonical_json, without_credentials
from rlhf_api.resource.data import DataSource
from rlhf_api.resource.labeler import PairOrders, PreferenceCleaning, RewardHeldOut
from rlhf_api.resource.training import Overlong
from rlhf_api.stage import HeldOutInput, OfflineSet, PreferenceModelWork, PromptIdentity, SftWork
from rlhf_api.words import StageName
from rlhf_trainer.data.preferences import Limits
from rlhf_trainer.models.vocabulary import Vocabulary

from .encoding import Comparison

#: To be raised when the same recipe comes to mean other examples, or the columns of their file change.
FORMAT = 3
#: Another version of these may write another text, or read it otherwise.
_RENDERED_BY = ("jinja2", "tokenizers", "transformers")


_FIELDS = {StageName.SFT: "sft.data", StageName.TRAIN: "train.data.offline"}
_LABELERS = {StageName.REWARD: "reward", StageName.JUDGE: "evaluate.judge"}


def whole(max_length: int) -> Limits:
    """Of conversations, which have no prompt of their own; and of a reward model's pairs: its head reads the last token, so that a
    pair that was cut would be scored where nothing has ended.
    """
    return Limits(max_length, max_length, Overlong.DROP)


@dataclass(frozen=True)
class Recipe:
    """stage: sft, of demonstrations; reward, judge and train (D_off), of preferences. min_margin, with_scores: of preferences.

    orders: where the model of reward or judge is a pairwise one, in which orders it is asked.
    """

    stage: StageName
    data: Sequence[DataSource]
    held_out: HeldOutInput | None
    limits: Limits
    seed: int
    min_margin: float = 0.0
    with_scores: bool = False
    cleaning: PreferenceCleaning | None = None
    held_out_pairs: RewardHeldOut | None = None
    orders: PairOrders | None = None

    @classmethod
    def of(cls, work: SftWork | PreferenceModelWork, seed: int) -> Recipe:
        common = (work.stage, work.data, work.held_out, whole(work.max_length), seed)
        if not isinstance(work, PreferenceModelWork):
            return cls(*common)
        return cls(*common, work.min_margin, cleaning=work.cleaning, held_out_pairs=work.held_out_pairs, orders=work.orders)

    @classmethod
    def of_offline(cls, offline: OfflineSet, limits: Limits, seed: int) -> Recipe:
        return cls(StageName.TRAIN, offline.data, offline.held_out, limits, seed, with_scores=offline.with_scores)

    @property
    def field(self) -> str:
        """Of the manifest, for messages."""
        if self.stage in _FIELDS:
            return _FIELDS[self.stage]
        return f"{_LABELERS[self.stage]}.{'bradleyTerry' if self.orders is None else 'pairwise'}.train.data"

    @property
    def comparison(self) -> Comparison:
        of_policy = self.stage is StageName.TRAIN
        return Comparison(self.limits, self.min_margin, of_policy=of_policy, with_scores=self.with_scores)

    @property
    def with_tools(self) -> bool:
        """Whether the prompts of its run have tools: what is trained on has them in the same form then."""
        return self.held_out is not None and self.held_out.identity is PromptIdentity.RENDERED_WITH_TOOLS

    def to_wire(self, vocabulary: Vocabulary) -> dict[str, Any]:
        of_offline = {
            "maxPromptLength": self.limits.max_prompt_length,
            "overlong": str(self.limits.overlong),
            "withScores": self.with_scores,
        }
        return {
            "stage": str(self.stage),
            "data": [source.to_wire() for source in self.data],
            "heldOut": None if self.held_out is None else self.held_out.to_wire(),
            "maxLength": self.limits.max_length,
            "minMargin": self.min_margin,
            "seed": self.seed,
            "vocabulary": vocabulary.fingerprint,
            "libraries": {name: importlib.metadata.version(name) for name in _RENDERED_BY},
            **(of_offline if self.stage is StageName.TRAIN else {}),
            # Only where it is asked for: what was prepared before there was such a thing is still found.
            **({} if self.cleaning is None else {"cleaning": self.cleaning.to_wire()}),
            **({} if self.held_out_pairs is None else {"heldOutPairs": self.held_out_pairs.to_wire()}),
            **({} if self.orders is None else {"orders": str(self.orders)}),
        }

    def fingerprint(self, vocabulary: Vocabulary) -> str | None:
        """SHA-256 (64 hex digits) of all that decides the examples. None where something of it has no revision: it may change."""
        pinned = all(source.revision for source in self.sources) and (self.held_out is None or _is_pinned(self.held_out))
        if not pinned or vocabulary.fingerprint is None:
            return None
        identity = without_credentials({**self.to_wire(vocabulary), "format": FORMAT})
        return hashlib.sha256(canonical_json(identity)).hexdigest()

    @property
    def selects(self) -> bool:
        """Whether what becomes of a pair depends on other pairs, so that all are made before any is kept."""
        return self.cleaning is not None or self.held_out_pairs is not None

    @property
    def sources(self) -> Sequence[DataSource]:
        """All that is read: what is trained on, and then what the model is measured by, where that is a set of its own."""
        own = self.held_out_pairs.data if self.held_out_pairs is not None else None
        return [*self.data, own] if own is not None else self.data

    def wanted(self, source: DataSource, rows: int) -> int:
        """Of the heaviest source all rows; of the others a share by weight; and never more than it allows."""
        heaviest = max(other.weight for other in self.data)
        by_weight = round(rows * source.weight / heaviest) if source in self.data else rows
        return by_weight if source.max_examples is None else min(by_weight, source.max_examples)

    def drawn(self, source: DataSource, rows: int) -> bytearray | None:
        """1 for each row that is taken, by the seed and by where it stands; None: all are."""
        wanted = self.wanted(source, rows)
        if wanted == rows:
            return None
        order = array("l", range(rows))
        random.Random(f"{self.seed}/{source.name}").shuffle(order)
        taken = bytearray(rows)
        for place in order[:wanted]:
            taken[place] = 1
        return taken


def _is_pinned(held: HeldOutInput) -> bool:
    prompts = held.prompts
    own = [part.source for part in (prompts.validation, prompts.test) if part is not None and part.source is not None]
    of_training = len(held.source_revisions) == held.iterations if "{iteration}" in prompts.source.uri else prompts.source.revision
    model = held.policy.model.source if held.policy is not None else None
    return bool(of_training) and all(source.revision for source in own) and (model is None or bool(model.revision))
