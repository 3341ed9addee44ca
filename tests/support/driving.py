"""Runs of the simulated world to their end, and what must be the same in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from rlhf_api.resource.labeler import Annotations
from rlhf_api.resource.run import RLHFRun
from rlhf_api.words import Reason
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.reconcile import reconcile

from .runs import digest_of
from .simulation import World
from .tape import Crash

#: More rounds than any run with an empty tape needs, after its tape is at its end.
ROUNDS = 400
#: Seeded: lists that hypothesis draws number by number are short and mostly zeros, and so hardly anything goes wrong in them.
TAPE = st.builds(
    lambda random, length: [random.randrange(2**16) for _ in range(length)], st.randoms(use_true_random=True), st.integers(0, 200)
)
#: The round in which the tape begins: an undisturbed run has some sixty.
BEGIN = st.integers(0, 60)
SPEC: dict[str, Any] = {
    "sft": {"data": [{"name": "demos", "uri": "hf://example/demos"}]},
    "sample": {"shards": 3, "parallelism": 3},
    "label": {"shards": 2, "parallelism": 2},
    "train": {"compute": {"nodes": 2, "processesPerNode": 1}},
    "gates": [{"name": "regress", "metric": "winRateVsPrevious", "min": 0.45, "action": "Rollback"}],
    # Enough for every failure that a tape can hold.
    "retry": {"application": 100, "infrastructure": 1000, "backoffSeconds": 10},
}


def answers(*iterations: int) -> list[dict[str, Any]]:
    """Entries of spec.annotations."""
    return [{"iteration": number, "digest": digest_of(f"answers {number}")} for number in iterations]


def person(world: World) -> None:
    """Whoever looks at the run, and answers what it waits for."""
    status = world.run.status
    if status is None or not any(entry.reason is Reason.AWAITING_ANNOTATIONS for entry in status.conditions):
        return
    [entry] = map(Annotations.model_validate, answers(status.iterations[-1].number))
    if entry.iteration not in {known.iteration for known in world.run.spec.annotations}:
        world.change_spec(annotations=[*world.run.spec.annotations, entry])


def drive(
    world: World, numbers: list[int] | None = None, begin: int = 0, disturb: Callable[[int], None] = lambda _: None
) -> RLHFRun:
    """Reconcile until the run is finished and nothing of it is left running; `numbers` go onto the tape in round `begin`.

    Whom the run asks, answers.
    """
    for number in range(ROUNDS + 3 * len(numbers or world.tape.numbers)):
        if number == begin:
            world.tape.numbers.extend(numbers or [])
        person(world)
        disturb(number)
        try:
            reconcile(world, world.clock)
        except Crash:
            continue
        world.step()
        status = world.run.status
        if status is not None and status.phase.finished and all(simulated.job.ended for simulated in world.jobs.values()):
            return world.run
    raise AssertionError(f"the run did not end: {world.run.status}")


def essence(run: RLHFRun) -> dict[str, object]:
    """What must be the same, whatever happened on the way."""
    assert run.status is not None
    stages = {
        (iteration, stage.name): (stage.phase, stage.artifact and stage.artifact.digest, dict(stage.metrics))
        for iteration, stage in stages_of(run.status)
    }
    return {
        "phase": run.status.phase,
        "stages": stages,
        "best": run.status.best_iteration,
        "checkpoint": run.status.checkpoint,
        "discarded": [entry.discarded for entry in run.status.iterations],
    }
