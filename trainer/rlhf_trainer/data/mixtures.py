"""What is read of several sources, by their weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from rlhf_api.resource.data import DataSource
from rlhf_trainer.runtime.context import StageContext

from . import sources
from .rows import Row, Tally, Unparsable


class _OfRow(Protocol):
    @property
    def row(self) -> int: ...


_Item = TypeVar("_Item", bound=_OfRow)
Read = Callable[[DataSource, Sequence[Row | Unparsable], str], tuple[list[_Item], Tally]]


def read_mixture(
    context: StageContext, data: Sequence[DataSource], read: Read[_Item], field: str
) -> list[tuple[list[_Item], Tally]]:
    """Of the heaviest source all rows; of the others, a share by weight, drawn by the run's seed. And what became of all rows."""
    heaviest = max(source.weight for source in data)
    taken = []
    for source in data:
        rows = sources.read_rows(source, context.scratch / "inputs", context.config.storage)
        items, tally = read(source, rows, field)
        tally.require_usable()
        wanted = round(len(rows) * source.weight / heaviest)
        order = list(range(len(rows)))
        random.Random(f"{context.config.seed}/{source.name}").shuffle(order)
        drawn = set(order[:wanted])
        taken.append(([item for item in items if item.row - 1 in drawn], tally))
    return taken
