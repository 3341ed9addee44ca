"""Which reference log-probs exist: (reference iterate, D_i) is computed once in a run, by the first iteration that reads it.

D_off is D_0.
"""

from __future__ import annotations

from collections.abc import Mapping

from rlhf_api.resource.training import ReferenceType, Replay
from rlhf_api.stage import ArtifactRef
from rlhf_api.words import StageName
from rlhf_operator.core.chain.chain import Chain

#: The number of the reference iterate; None: the model of spec.reference, the same in every iteration.
ReferenceKey = int | None
#: The number of D_off.
OFFLINE = 0
Cache = Mapping[tuple[ReferenceKey, int], ArtifactRef]


def replayed(chain: Chain, iteration: int) -> range:
    """The iterations whose D_i iteration t trains on, oldest first; those that were rolled back kept their data."""
    data = chain.spec.train.data
    match data.replay:
        case Replay.LATEST:
            first = iteration
        case Replay.ALL:
            first = 1
        case Replay.WINDOW:
            first = max(1, iteration - (data.window or 1) + 1)
    return range(first, iteration + 1)


def data_sets(chain: Chain, iteration: int) -> list[int]:
    """What iteration t trains on: D_off, where there is one, and the D_i that are replayed."""
    offline = [OFFLINE] if chain.spec.train.data.offline else []
    return [*offline, *replayed(chain, iteration)]


def reference_key(chain: Chain, iteration: int) -> ReferenceKey:
    """Under which iterate iteration t needs log-probs."""
    match chain.spec.reference.type:
        case ReferenceType.INITIAL:
            return 0
        case ReferenceType.PREVIOUS:
            return chain.iterates.latest(iteration)
        case ReferenceType.MODEL:
            return None


def reference_cache(chain: Chain, before: int) -> Cache:
    """What the reference stages of iterations 1 … before - 1 computed, by reference and data set.

    The status keeps one artifact a stage, not its list of data sets; that list follows from the same rule by which it was made.
    """
    cache: dict[tuple[ReferenceKey, int], ArtifactRef] = {}
    for iteration in range(1, before):
        artifact = chain.history.artifact(iteration, StageName.REFERENCE)
        if artifact is not None:
            key = reference_key(chain, iteration)
            cache.update({(key, number): artifact for number in missing_sets(cache, chain, iteration)})
    return cache


def missing_sets(cache: Cache, chain: Chain, iteration: int) -> list[int]:
    """Those that iteration t trains on and that have no log-probs under its reference."""
    key = reference_key(chain, iteration)
    return [number for number in data_sets(chain, iteration) if (key, number) not in cache]
