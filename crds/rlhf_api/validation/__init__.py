"""Is a manifest right? All problems at once, each with its place, what stands there, what is wrong and what would be right.

    validation = validate(read_manifest(text).raw)
    if validation.run is None: print each of validation.invalid

What the API has and this version cannot do yet is no error of the manifest: it stands apart, in `not_available`.
"""

from __future__ import annotations

from rlhf_api.validation.rules.machine import Machine, check_environment, check_machine

from .check import Validation, validate
from .problem import ABSENT, Category, Problem, format_path

__all__ = [
    "ABSENT",
    "Category",
    "Machine",
    "Problem",
    "Validation",
    "check_environment",
    "check_machine",
    "format_path",
    "validate",
]
