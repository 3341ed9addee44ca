"""Prompts: read, identified, held out, cut into iterations. The same rows for every shard, whatever their number."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from rlhf_api.resource.data import HoldOut, Prompts, PromptSource
from rlhf_api.resource.storage import Storage
from rlhf_trainer.runtime.errors import ConfigurationProblem

from . import sources
from .layouts import questions_of
from .messages import Message, Tools
from .rows import Tally, Unusable, shown


class Identify(Protocol):
    """The id of a prompt, from what the policy is asked."""

    def __call__(self, messages: Sequence[Message], tools: Tools = None) -> str:
        """Raises Unusable where it cannot be asked so."""


@dataclass(frozen=True)
class Prompt:
    """where: its source and row, for messages. tools: functions, as `functions_of` has them.

    answer: the reference answer of its row, which nobody shows the policy; None where there is none.
    """

    id: str
    messages: tuple[Message, ...]
    where: str = field(default="", compare=False)
    tools: Tools = None
    answer: str | None = None


@dataclass(frozen=True)
class PromptSets:
    """training[t - 1]: the prompts of iteration t, at most perIteration."""

    validation: tuple[Prompt, ...]
    test: tuple[Prompt, ...]
    training: tuple[tuple[Prompt, ...], ...]
    counts: Mapping[str, int] = field(default_factory=dict)


def prompt_id(messages: Sequence[Message], tools: Tools = None) -> str:
    """First 16 hex digits of the SHA-256 of the conversation: equal prompts have equal ids in every source and iteration.

    Raises Unusable for one that has tools.
    """
    require_no_tools(tools)
    canonical = [[message["role"], message["content"]] for message in messages]
    return hashlib.sha256(json.dumps(canonical, ensure_ascii=False).encode()).hexdigest()[:16]


def require_no_tools(tools: Tools) -> None:
    """For runs that began without: what they held out stays what it was. Raises Unusable."""
    if tools:
        raise Unusable("toolsNotSampled", "it has tools, and this run began without prompts that have any; begin it again")


def load_prompt_sets(
    prompts: Prompts,
    iterations: int,
    scratch: Path,
    storage: Storage,
    revisions: Sequence[str] = (),
    *,
    last: int = 0,
    identify: Identify = prompt_id,
) -> PromptSets:
    """Every source once, then hold-outs, then the iterations. Raises ConfigurationProblem for sources whose rows are no prompts.

    `iterations`: T as the run began, over which the hold-outs are spread. `last`: an iteration beyond it, where T was raised since.
    """
    last = max(last, iterations)
    varies = "{iteration}" in prompts.source.uri
    pools: list[list[Prompt]] = []
    seen: set[str] = set()
    answered: dict[str, Prompt] = {}
    rows, unusable, with_tools = 0, 0, 0
    for number in range(1, last + 1) if varies else [0]:
        update: dict[str, Any] = {"uri": prompts.source.uri.replace("{iteration}", str(number))}
        if varies and number <= len(revisions):
            update["revision"] = revisions[number - 1]
        read, tally = read_prompts(prompts.source.model_copy(update=update), scratch, storage, identify)
        rows, unusable = rows + tally.rows, unusable + tally.unusable
        with_tools += sum(prompt.tools is not None for prompt in read)
        _require_one_answer(answered, read)
        # An equal prompt in a later source would leak a held-out one into training.
        pools.append([p for p in {p.id: p for p in read}.values() if p.id not in seen])
        seen |= {p.id for p in pools[-1]}
    own = {
        name: read_prompts(held.source, scratch, storage, identify, f"prompts.{name}.source")[0]
        if held is not None and held.source is not None
        else None
        for name, held in (("validation", prompts.validation), ("test", prompts.test))
    }
    with_tools += sum(prompt.tools is not None for part in own.values() for prompt in part or ())
    for part in own.values():
        _require_one_answer(answered, part or ())
    held_elsewhere = {p.id for part in own.values() if part for p in part}
    pools = [[p for p in pool if p.id not in held_elsewhere] for pool in pools]
    pools = [sorted(pool, key=lambda p: hashlib.sha256(f"hold-out/{p.id}".encode()).digest()) for pool in pools]
    first, later = pools[:iterations], pools[iterations:]
    validation, first = _hold_out(prompts.validation, own["validation"], first)
    test, first = _hold_out(prompts.test, own["test"], first, {p.id for p in validation})
    pools = first + later
    if varies:
        training = [pool[: prompts.per_iteration] for pool in pools]
    else:
        size = prompts.per_iteration
        training = [pools[0][t * size : (t + 1) * size] for t in range(last)]
    counts = {"rows": rows, "duplicates": rows - unusable - len(seen), "validation": len(validation), "test": len(test)}
    if unusable:
        counts["unusable"] = unusable
    if with_tools:
        counts["withTools"] = with_tools
    return PromptSets(tuple(validation), tuple(test), tuple(tuple(part) for part in training), counts)


def read_prompts(
    source: PromptSource, scratch: Path, storage: Storage, identify: Identify = prompt_id, field: str = "prompts.source"
) -> tuple[list[Prompt], Tally]:
    """Raises ConfigurationProblem where more rows are no prompts than the source allows. `field`: of the manifest, for messages."""
    rows = list(sources.open_rows(source, scratch, storage))
    questions, tally = questions_of(source, rows, field).read(rows)
    found: list[Prompt] = []
    for question in questions:
        try:
            own = identify(question.messages, question.tools)
            where = f"{source.uri}: {tally.place(question.row)}"
            found.append(Prompt(own, question.messages, where, question.tools, _answer_text(question.answer, where)))
        except Unusable as problem:
            tally.leave_out(question.row, problem)
    tally.require_usable()
    return found, tally


def _answer_text(value: object, where: str) -> str | None:
    """A reference answer, as rules compare with it; None where there is none.

    Raises ConfigurationProblem for what is neither text nor a number: a row that was left out would change what is held out.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        raise ConfigurationProblem(f"{where}: the reference answer is {shown(value)}, neither text nor a number. Write it as text.")
    return str(value)


def _require_one_answer(answered: dict[str, Prompt], prompts: Sequence[Prompt]) -> None:
    """Raises ConfigurationProblem where a prompt comes again with another answer. `answered`: by id, to which these are added."""
    for prompt in prompts:
        if prompt.answer is None:
            continue
        first = answered.setdefault(prompt.id, prompt)
        if first.answer != prompt.answer:
            raise ConfigurationProblem(
                f"{prompt.where} asks what {first.where} asks, and has another reference answer: {shown(prompt.answer)}, and "
                f"{shown(first.answer)} there. Leave the wrong one out."
            )


def _hold_out(
    spec: HoldOut | None, own: list[Prompt] | None, pools: list[list[Prompt]], taken: Set[str] = frozenset()
) -> tuple[list[Prompt], list[list[Prompt]]]:
    """The held-out prompts and what is left of each pool. Even shares of the pools, by order of hash; nothing of `taken`."""
    if spec is None:
        return [], pools
    if own is not None:
        unique = list({p.id: p for p in own if p.id not in taken}.values())
        return unique[: spec.size] if spec.size is not None else unique, pools
    total = sum(len(pool) for pool in pools)
    wanted = spec.size if spec.size is not None else round((spec.fraction or 0.0) * total)
    shares = _even_shares([len(pool) for pool in pools], wanted)
    held = [p for pool, share in zip(pools, shares, strict=True) for p in pool[:share]]
    return held, [pool[share:] for pool, share in zip(pools, shares, strict=True)]


def _even_shares(sizes: Sequence[int], wanted: int) -> list[int]:
    """`wanted` as evenly as the sizes allow: what a small pool cannot give, the others do; the first give the remainder."""
    shares = [0] * len(sizes)
    for _ in range(min(wanted, sum(sizes))):
        open_pools = (i for i, size in enumerate(sizes) if shares[i] < size)
        shares[min(open_pools, key=lambda i: shares[i])] += 1
    return shares
