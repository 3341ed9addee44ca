"""What finalize removes: a run's own artifacts that `spec.storage.retention` gives up, and nothing that it only found."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_api.resource.storage import RetentionPolicy
from rlhf_api.stage import ArtifactRef
from rlhf_api.words import ArtifactKind, StageName
from rlhf_operator.core.chain.chain import Chain

from .reference_cache import reference_cache, reference_key, replayed

_DATA = (ArtifactKind.SAMPLES, ArtifactKind.QUESTIONS, ArtifactKind.LABELS, ArtifactKind.REFERENCE_LOGPS)
_TRAINED = (ArtifactKind.POLICY, ArtifactKind.REWARD_MODEL)


@dataclass(frozen=True)
class Removals:
    """artifacts: as a whole. masters: policies that lose their fp32 master weights. checkpoints: trainings that are over."""

    artifacts: tuple[ArtifactRef, ...]
    masters: tuple[ArtifactRef, ...]
    checkpoints: tuple[ArtifactRef, ...]


def removals(chain: Chain, best: int) -> Removals:
    """By spec.storage.retention, once pi_best is chosen."""
    retention = chain.spec.storage.retention
    own = [record.artifact for record in chain.history.records if record.artifact is not None and not record.adopted]
    chosen = chain.iterate_model(best).artifact
    kept: set[ArtifactRef] = set()
    match retention.samples:
        case RetentionPolicy.RETAIN:
            kept.update(ref for ref in own if ref.kind in _DATA)
        case RetentionPolicy.KEEP_BEST:
            kept.update(_learnt_from(chain, best))
    if retention.checkpoints is RetentionPolicy.RETAIN:
        kept.update(ref for ref in own if ref.kind is ArtifactKind.POLICY)
    return Removals(
        artifacts=tuple(ref for ref in own if ref.kind in (*_DATA, ArtifactKind.POLICY) and ref not in kept and ref != chosen),
        masters=tuple(ref for ref in own if ref == chosen and retention.checkpoints is RetentionPolicy.DELETE),
        checkpoints=tuple(ref for ref in own if ref.kind in _TRAINED),
    )


def _learnt_from(chain: Chain, best: int) -> set[ArtifactRef]:
    """What the training of pi_best read, and the samples and questions behind it; pi_0 was not made from any of it."""
    if best == 0:
        return set()
    sets = replayed(chain, best)
    cache, key = reference_cache(chain, best + 1), reference_key(chain, best)
    asked = () if chain.spec.reward.human is None else (StageName.ASK,)
    found = {chain.artifact(number, stage) for number in sets for stage in (StageName.SAMPLE, *asked, StageName.LABEL)}
    return found | {cache[key, number] for number in sets if (key, number) in cache}
