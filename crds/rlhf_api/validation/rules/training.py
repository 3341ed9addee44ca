"""Rules of sft, reward training and preference training."""

from __future__ import annotations

from rlhf_api.reading.manifest import Loc
from rlhf_api.resource.compute import Compute, DeepSpeed, Offload, Optimization
from rlhf_api.resource.labeler import PreferenceTraining
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.training import Pairing, Sft, Train
from rlhf_api.validation.problem import Problem, Problems
from rlhf_api.validation.walk import SPEC, all_of, models


def batch_divides(spec: RLHFRunSpec) -> Problems:
    """Every rank takes the same number of rows in each step."""
    for loc, stage in models(spec, SPEC):
        if isinstance(stage, Sft | PreferenceTraining | Train):
            yield from _batch_divides(loc, stage.optimization, stage.compute)


def _batch_divides(loc: Loc, optimization: Optimization, compute: Compute) -> Problems:
    batch, ranks = optimization.global_batch_size, compute.world_size
    if batch % ranks == 0:
        return
    below = batch // ranks * ranks
    examples = f"{below} or {below + ranks}" if below else f"{ranks}"
    yield Problem(
        (*loc, "optimization", "globalBatchSize"),
        f"not divisible by the {ranks} ranks (nodes {compute.nodes} times processesPerNode {compute.processes_per_node})",
        f"write a multiple of {ranks}: {examples}",
        depends=((*loc, "compute", "nodes"), (*loc, "compute", "processesPerNode")),
    )


def held_out_pairs_have_a_name_of_their_own(spec: RLHFRunSpec) -> Problems:
    """Counts and tables name a data set."""
    for loc, training in models(spec, SPEC):
        if isinstance(training, PreferenceTraining) and training.held_out is not None and training.held_out.data is not None:
            name = training.held_out.data.name
            if name in {source.name for source in training.data}:
                yield Problem(
                    (*loc, "heldOut", "data", "name"),
                    f"{name} is the name of a set of data, too",
                    "write another name",
                    depends=((*loc, "data"),),
                )


def pairing_can_be_met(spec: RLHFRunSpec) -> Problems:
    """Scores between 0 and 1 differ by at most 1, and their standard deviation is at most a half; a penalty adds what it likes."""
    declared = spec.reward.rule is not None and spec.reward.rule.entry_point is None
    compares = spec.reward.type.compares and spec.reward.human is None
    if spec.label.length_penalty_per_character or not (declared or compares):
        return
    what = f"the scores of this reward ({spec.reward.type}) lie between 0 and 1"
    place: Loc = (*SPEC, "label", "pairing")
    depends = ((*SPEC, "reward"), (*SPEC, "label", "lengthPenaltyPerCharacter"))
    std = spec.label.pairing.min_reward_std
    if std is not None and std >= 0.5:
        yield Problem(
            (*place, "minRewardStd"),
            f"above every prompt's: {what}, so that no standard deviation is above 0.5",
            "write less than 0.5, or leave it out",
            depends=depends,
        )
    if spec.label.pairing.min_margin >= 1:
        yield Problem((*place, "minMargin"), f"above every pair's: {what}", "write less than 1, or leave it out", depends=depends)


def people_choose_the_pairs(spec: RLHFRunSpec) -> Problems:
    """What is said of scores says nothing where people answer about pairs: nobody must take it for obeyed."""
    if spec.reward.human is None:
        return
    label, plain = spec.label, Pairing()
    place: Loc = (*SPEC, "label")
    wrong, right = "is about scores, and people give none", "leave it out, or name another reward"
    fields: tuple[tuple[tuple[str, ...], bool], ...] = (
        (("lengthPenaltyPerCharacter",), label.length_penalty_per_character != 0),
        (("pairing", "strategy"), label.pairing.strategy is not plain.strategy),
        (("pairing", "minMargin"), label.pairing.min_margin != plain.min_margin),
        (("pairing", "minRewardStd"), label.pairing.min_reward_std is not None),
    )
    for field, is_set in fields:
        if is_set:
            yield Problem((*place, *field), wrong, right, depends=((*SPEC, "reward", "type"),))


def prompt_leaves_room(spec: RLHFRunSpec) -> Problems:
    """A row holds the prompt and at least one token of the response."""
    train = spec.train
    if train.max_prompt_length >= train.max_length:
        yield Problem(
            (*SPEC, "train", "maxPromptLength"),
            f"leaves no token for the response: maxLength is {train.max_length}",
            f"write less than {train.max_length}, or raise maxLength",
            depends=((*SPEC, "train", "maxLength"),),
        )


def budget_holds_a_row(spec: RLHFRunSpec) -> Problems:
    """A packed micro-batch holds one prompt with two responses at least as long as one row."""
    train = spec.train
    if train.token_budget is not None and train.token_budget < train.max_length:
        yield Problem(
            (*SPEC, "train", "tokenBudget"),
            f"less than one row: maxLength is {train.max_length}",
            f"write at least {train.max_length}, or leave it out",
            depends=((*SPEC, "train", "maxLength"),),
        )


def offload_fits_zero(spec: RLHFRunSpec) -> Problems:
    """What is not sharded cannot be offloaded."""
    needed = {Offload.NONE: 0, Offload.OPTIMIZER: 1, Offload.ALL: 3}
    for loc, deepspeed in all_of(spec, DeepSpeed):
        least = needed[deepspeed.offload]
        if deepspeed.zero_stage < least:
            yield Problem(
                (*loc, "offload"),
                f"needs zeroStage {least} or more, and zeroStage is {deepspeed.zero_stage}",
                f"write zeroStage: {least}, or offload: None",
                depends=((*loc, "zeroStage"),),
            )
