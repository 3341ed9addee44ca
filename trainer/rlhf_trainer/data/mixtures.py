"""Rows of several sources, by their weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from rlhf_api.resource.data import DataSource
from rlhf_trainer.runtime.context import StageContext

from . import sources


def read_mixture(context: StageContext, data: Sequence[DataSource]) -> list[list[dict[str, Any]]]:
    """Rows of each source. The heaviest is taken whole; of the others, a share by weight, drawn by the run's seed."""
    heaviest = max(source.weight for source in data)
    taken = []
    for source in data:
        rows = sources.read_rows(source, context.scratch / "inputs", context.config.storage)
        wanted = round(len(rows) * source.weight / heaviest)
        order = list(range(len(rows)))
        random.Random(f"{context.config.seed}/{source.name}").shuffle(order)
        taken.append([rows[i] for i in sorted(order[:wanted])])
    return taken
