"""The table of rlhf_api.resource.unions, on every object of a spec."""

from __future__ import annotations

from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.unions import UNIONS
from rlhf_api.validation.problem import Problem, Problems
from rlhf_api.validation.walk import SPEC, models


def unions(spec: RLHFRunSpec) -> Problems:
    for loc, model in models(spec, SPEC):
        for rule in UNIONS.get(type(model), ()):
            for found in rule.check(model):
                place = loc if found.field is None else (*loc, found.field)
                yield Problem(place, found.wrong, found.right, depends=tuple((*loc, field) for field in found.depends))
