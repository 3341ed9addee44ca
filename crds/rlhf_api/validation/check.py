"""validate: the schema, then every rule, all problems in one go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rlhf_api.resource.run import RLHFRun, RLHFRunSpec
from rlhf_api.validation.rules.not_available import not_available
from rlhf_api.validation.structure.normal import normalise
from rlhf_api.validation.structure.structure import check_structure, consequential
from rlhf_api.words import API_VERSION, KIND

from .problem import ABSENT, Category, Problem, Problems, entry_name, value_at
from .rules import evaluation, labelers, pods, sampling, sources, training, unions

#: Rules across fields. Each is a small function with a table test of its own.
RULES: tuple[Callable[[RLHFRunSpec], Problems], ...] = (
    unions.unions,
    sources.store_settings_fit,
    sources.uris_are_whole,
    sources.placeholders,
    sources.revisions_fit,
    sources.held_out_leaves_some,
    training.batch_divides,
    training.pairing_can_be_met,
    training.people_choose_the_pairs,
    training.prompt_leaves_room,
    training.budget_holds_a_row,
    training.held_out_pairs_have_a_name_of_their_own,
    training.offload_fits_zero,
    labelers.judge_is_independent,
    labelers.judge_prompts_are_whole,
    labelers.gated_models_are_read_without_their_code,
    labelers.answers_are_named,
    labelers.answers_are_not_asked,
    labelers.pairs_are_there_to_ask_about,
    labelers.annotations_answer_questions,
    sampling.parallelism_within_shards,
    sampling.every_entry_samples,
    sampling.greedy_entries_answer_once,
    sampling.engine_arguments_change_no_answer,
    sampling.numbered_iterates_exist,
    evaluation.validation_has_prompts,
    evaluation.against_once,
    evaluation.gates_look_at_iterations,
    evaluation.selection_is_measured,
    evaluation.metrics_are_measured,
    evaluation.gate_bounds_fit_the_unit,
    evaluation.gates_read_benchmarks_that_are_asked,
    evaluation.benchmark_bounds_fit_the_unit,
    evaluation.approvals_name_gates,
    pods.environment_is_free,
    pods.labels_are_free,
    pods.volume_names_are_free,
    pods.mounts_have_volumes,
    pods.mount_paths_differ,
    pods.requests_within_limits,
    pods.ranks_have_gpus,
    not_available,
)
#: Beside them where a cluster runs it.
CLUSTER_RULES: tuple[Callable[[RLHFRunSpec], Problems], ...] = (sources.store_is_shared,)
#: Beside them where this machine runs it.
LOCAL_RULES: tuple[Callable[[RLHFRunSpec], Problems], ...] = (sources.certificates_are_files,)


@dataclass(frozen=True)
class Validation:
    """`run` is there exactly when nothing is invalid; what is not available in this version does not count as invalid."""

    run: RLHFRun | None
    problems: tuple[Problem, ...]

    @property
    def invalid(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.category is Category.INVALID)

    @property
    def not_available(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.category is Category.NOT_AVAILABLE)

    @property
    def ok(self) -> bool:
        """Whether this version can run it."""
        return self.run is not None and not self.problems


def validate(raw: Any, *, local: bool = False) -> Validation:
    """Check a manifest as read_manifest gives it. Raises nothing, whatever `raw` is; a status in it is not looked at.

    local: a run on this machine, whose store may be a folder. The caller has filled in storage.url where it was absent.
    """
    normal, problems = normalise(raw)
    if not isinstance(normal, dict):
        return Validation(None, (*problems, Problem((), "not an object", "a manifest has apiVersion, kind, metadata and spec")))
    normal.pop("status", None)
    written, _ = normalise(normal)
    problems += _envelope(normal)
    structure = check_structure(normal, frozenset(problem.loc for problem in problems))
    problems += structure.problems
    if structure.run is not None:
        rules = (*RULES, *(LOCAL_RULES if local else CLUSTER_RULES))
        wire = structure.run.to_wire()
        for rule in rules:
            found = (problem for problem in rule(structure.run.spec) if not consequential(problem, structure.tainted))
            problems += [_with_value(problem, written, wire) for problem in found]
    named = tuple(replace(problem, entry=entry_name(written, problem.loc)) for problem in problems)
    invalid = any(problem.category is Category.INVALID for problem in named)
    return Validation(None if invalid else structure.run, named)


def _envelope(raw: dict[str, Any]) -> list[Problem]:
    """The models know one apiVersion and one kind, and have them as defaults; a manifest must say both."""
    wanted = {"apiVersion": API_VERSION, "kind": KIND}
    missing = [key for key in wanted if key not in raw]
    raw.update({key: wanted[key] for key in missing})
    return [Problem((key,), "required, and absent", f"write {key}: {wanted[key]}") for key in missing]


def _with_value(problem: Problem, written: dict[str, Any], wire: dict[str, Any]) -> Problem:
    """What stands at the place, or its default; objects say too much."""
    value = value_at(written, problem.loc)
    if value is ABSENT:
        value = value_at(wire, problem.loc)
    return problem if problem.value is not ABSENT or isinstance(value, dict) else replace(problem, value=value)
