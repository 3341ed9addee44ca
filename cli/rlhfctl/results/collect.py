"""Gather a Report from a run's status and the artifacts that it names. What cannot be read is said, and the rest is shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from rlhf_api import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus, StageStatus
from rlhf_api.stage import ArtifactRef, RunRef
from rlhf_api.words import STAGE_ARTIFACT, Phase, StageName
from rlhf_operator.core.cursor import stages_of
from rlhf_store import Artifact, NotFound, Store, StoreError, Unavailable, metrics_key, open_artifact
from rlhfctl import figures

from .files import BenchmarkFile, Decoding, EvaluationFile, HeldOutFile, HeldOutPart, read_curves
from .iterates import iterates
from .lineage import lineage_of
from .model import (
    Accuracy,
    BenchmarkFigure,
    Calibration,
    Count,
    Curve,
    Example,
    GateVerdictRow,
    HeldOutFigures,
    Iterate,
    LineageNode,
    Report,
    StageTime,
    TestFigure,
)
from .people import people_figures

_M = TypeVar("_M", bound=BaseModel)


def collect(run: RLHFRun, store: Store, now: datetime) -> Report:
    """The report of a run in any phase."""
    status = run.status or RLHFRunStatus()
    gathered = _Gathered(_reference(run), status, store)
    best = status.best_iteration
    seconds = ((status.completion_time or now) - status.start_time).total_seconds() if status.start_time else None
    return Report(
        name=run.metadata.name,
        namespace=run.metadata.namespace,
        phase=status.phase.value,
        message=status.message,
        started=figures.clock(status.start_time),
        ended=figures.clock(status.completion_time),
        seconds=seconds,
        iterations_planned=run.spec.iterations,
        selection_metric=run.spec.selection.metric.value,
        iterates=tuple(_iterates(status)),
        curves=tuple(gathered.curves),
        examples=gathered.examples(best),
        tests=tuple(gathered.tests()),
        benchmarks=tuple(gathered.benchmarks),
        held_out=gathered.held_out.get(StageName.REWARD),
        judge_held_out=gathered.held_out.get(StageName.JUDGE),
        people=people_figures(run, store, gathered.questions, gathered.missing),
        times=tuple(_times(status)),
        counts=tuple(gathered.counts),
        gates=tuple(_gates(status)),
        lineage=gathered.lineage(best),
        checkpoint_url=status.checkpoint.url if status.checkpoint else "",
        manifest={key: value for key, value in run.to_wire().items() if key != "status"},
        missing=tuple(dict.fromkeys([*_left_out(status), *gathered.missing])),
    )


class _Gathered:
    """What the artifacts say."""

    def __init__(self, run: RunRef | None, status: RLHFRunStatus, store: Store) -> None:
        self._store = store
        self.missing: list[str] = []
        self.counts: list[Count] = []
        self.curves: list[Curve] = []
        self.benchmarks: list[BenchmarkFigure] = []
        self.held_out: dict[StageName, HeldOutFigures] = {}
        self.questions: dict[int, int] = {}
        self._evaluations: dict[int, EvaluationFile] = {}
        self._policies: dict[int, Artifact] = {}
        for iteration, stage in _sealed_stages(status):
            artifact = self._open(iteration, stage)
            if artifact is not None:
                self._take(iteration, stage, artifact)
        if run is not None:
            for iteration, stage in _at_training(status):
                self._take_curves_so_far(run, iteration, stage.name)

    def examples(self, best: int | None) -> tuple[Example, ...]:
        """Of the best iterate; before there is one, of the newest."""
        number = best if best in self._evaluations else max(self._evaluations, default=None)
        if number is None:
            return ()
        return tuple(
            Example(
                entry.prompt_id,
                entry.prompt,
                entry.response,
                entry.initial_response,
                entry.judge,
                entry.initial_judge,
                entry.reward,
            )
            for entry in self._evaluations[number].examples
        )

    def tests(self) -> Iterator[TestFigure]:
        for number, evaluation in sorted(self._evaluations.items()):
            test = evaluation.test
            if test is None:
                continue
            for name, decoding in (("sampled", test.sampled), ("greedy", test.greedy)):
                if isinstance(decoding, Decoding):
                    yield TestFigure(number, test.prompts, name, decoding.judge_mean, decoding.gain_vs_initial)

    def lineage(self, best: int | None) -> LineageNode | None:
        policy = None if best is None else self._policies.get(best)
        if policy is None:
            return None
        return lineage_of(policy, self._store, self.missing)

    def _open(self, iteration: int, stage: StageStatus) -> Artifact | None:
        if stage.artifact is None:
            return None
        ref = ArtifactRef(kind=STAGE_ARTIFACT[stage.name], fingerprint=stage.artifact.fingerprint, digest=stage.artifact.digest)
        try:
            return open_artifact(self._store, ref)
        except Unavailable:
            raise  # The next artifact would only make the reader wait again.
        except NotFound:
            self.missing.append(f"{_where(iteration, stage.name)}: its artifact is gone from the store, by retention or by hand")
        except StoreError as error:
            self.missing.append(f"{_where(iteration, stage.name)}: {error}")
        return None

    def _take(self, iteration: int, stage: StageStatus, artifact: Artifact) -> None:
        for name, number in sorted(artifact.manifest.counts.items()):
            self.counts.append(Count(iteration, stage.name.value, name, number))
        if stage.name == StageName.ASK:
            self.questions[iteration] = artifact.manifest.counts.get("questions", 0)
        elif stage.name == StageName.EVALUATE:
            self._take_evaluation(iteration, artifact)
        elif stage.name == StageName.BENCHMARK:
            found = self._parsed(iteration, stage.name, artifact, "benchmark.json", BenchmarkFile)
            self.benchmarks += [] if found is None else _figures(iteration, found)
        elif stage.name in (StageName.REWARD, StageName.JUDGE) and artifact.manifest.file("held_out.json") is not None:
            measured = self._parsed(iteration, stage.name, artifact, "held_out.json", HeldOutFile)
            if measured is not None:
                self.held_out[stage.name] = _held_out(measured)
        elif stage.name == StageName.TRAIN:
            self._policies[iteration] = artifact
            content = self._read(iteration, stage.name, artifact, "metrics.jsonl")
            self.curves += read_curves(content, iteration) if content is not None else []
        elif stage.name == StageName.SFT:
            self._policies[0] = artifact

    def _take_curves_so_far(self, run: RunRef, iteration: int, stage: StageName) -> None:
        """What a training puts into the store before it seals anything; there is nothing of one that has just begun."""
        try:
            content = self._store.get(metrics_key(run, iteration, stage))
        except Unavailable:
            raise
        except NotFound:
            return
        except StoreError as error:
            self.missing.append(f"{_where(iteration, stage)}, its curves so far: {error}")
            return
        self.curves += read_curves(content, iteration)

    def _take_evaluation(self, iteration: int, artifact: Artifact) -> None:
        found = self._parsed(iteration, StageName.EVALUATE, artifact, "report.json", EvaluationFile)
        if found is not None:
            self._evaluations[iteration] = found

    def _parsed(self, iteration: int, stage: StageName, artifact: Artifact, name: str, form: type[_M]) -> _M | None:
        content = self._read(iteration, stage, artifact, name)
        if content is None:
            return None
        try:
            return form.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            self.missing.append(f"{_where(iteration, stage)}: {name} cannot be read ({place}: {first['msg']})")
            return None

    def _read(self, iteration: int, stage: StageName, artifact: Artifact, name: str) -> bytes | None:
        try:
            return artifact.read(name)
        except StoreError as error:
            self.missing.append(f"{_where(iteration, stage)}: {error}")
            return None


def _figures(iteration: int, file: BenchmarkFile) -> Iterator[BenchmarkFigure]:
    members = {member for task in file.tasks if task.metrics for member in task.members}
    for task in file.tasks:
        for name, found in task.metrics.items():
            sizes = (task.samples, task.of_samples, task.truncated, task.name in members)
            yield BenchmarkFigure(iteration, task.name, name, found.value, found.stderr, task.shots, *sizes)


def _held_out(file: HeldOutFile) -> HeldOutFigures:
    whole = HeldOutPart(name="all", pairs=file.pairs, accuracy=file.accuracy, by_length=file.by_length)
    groups = (("Whole", (whole,)), ("Length", file.lengths), ("Subset", file.subsets))
    return HeldOutFigures(
        file.prompts,
        file.mean_of_subsets,
        file.expected_calibration_error,
        tuple(Accuracy(group, part.name, part.pairs, part.accuracy, part.by_length) for group, parts in groups for part in parts),
        tuple(Calibration(found.lower, found.predictions, found.predicted, found.observed) for found in file.calibration),
    )


def _left_out(status: RLHFRunStatus) -> Iterator[str]:
    """Stages that the run went on without."""
    for iteration, stage in _all_stages(status):
        if stage.beside and stage.phase == Phase.FAILED:
            yield f"{_where(iteration, stage.name)}: it failed, and the run went on without it. {stage.message}"


def _sealed_stages(status: RLHFRunStatus) -> Iterator[tuple[int, StageStatus]]:
    for iteration, stage in _all_stages(status):
        if stage.artifact is not None and stage.name in STAGE_ARTIFACT:
            yield iteration, stage


def _reference(run: RLHFRun) -> RunRef | None:
    """None: one that was never submitted, of which no stage has run."""
    own = run.metadata
    return None if own.uid is None else RunRef(namespace=own.namespace, name=own.name, uid=own.uid)


def _at_training(status: RLHFRunStatus) -> Iterator[tuple[int, StageStatus]]:
    """Trainings that began and have sealed nothing."""
    for iteration, stage in _all_stages(status):
        if stage.name == StageName.TRAIN and stage.artifact is None and stage.start_time is not None:
            yield iteration, stage


def _all_stages(status: RLHFRunStatus) -> Iterator[tuple[int, StageStatus]]:
    """Every stage with its iteration; 0 is the run itself."""
    return ((iteration or 0, stage) for iteration, stage in stages_of(status))


def _iterates(status: RLHFRunStatus) -> Iterator[Iterate]:
    discarded = {iteration.number for iteration in status.iterations if iteration.discarded}
    for number, metrics in iterates(status):
        yield Iterate(number, metrics, best=number == status.best_iteration, discarded=number in discarded)


def _times(status: RLHFRunStatus) -> Iterator[StageTime]:
    for iteration, stage in _all_stages(status):
        if stage.start_time is not None and stage.completion_time is not None and stage.phase == Phase.SUCCEEDED:
            seconds = (stage.completion_time - stage.start_time).total_seconds()
            yield StageTime(iteration, stage.name.value, seconds, stage.attempt, stage.adopted)


def _gates(status: RLHFRunStatus) -> Iterator[GateVerdictRow]:
    for iteration in sorted(status.iterations, key=lambda item: item.number):
        for gate in iteration.gates:
            yield GateVerdictRow(iteration.number, gate.name, gate.verdict.value, gate.action.value, gate.message)


def _where(iteration: int, stage: StageName) -> str:
    return f"iteration {iteration}, {stage}" if iteration else f"{stage} of the run"
