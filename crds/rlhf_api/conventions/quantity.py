"""Kubernetes quantities: "500m", "8", 64Gi."""

from __future__ import annotations

from decimal import Decimal

_FACTORS = {
    "": Decimal(1),
    "m": Decimal(1) / 1000,
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTP", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTP", start=1)},
}


def parse_quantity(value: int | str) -> Decimal:
    """In the unit of the resource: cores, bytes, GPUs. `value` has the form that the schema asks for."""
    text = str(value)
    number = text.rstrip("mkKMGTPi")
    return Decimal(number) * _FACTORS[text[len(number) :]]
