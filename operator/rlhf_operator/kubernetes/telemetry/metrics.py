"""What the operator measures, for Prometheus. Labels are words of this project and of HTTP: none takes values from users.

The names are part of the API (docs/api.md); the dashboard of the chart reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from rlhf_api.resource.status import RLHFRunStatus, StageStatus
from rlhf_api.words import Phase, StageName
from rlhf_operator.core.cursor import stages_of

#: From a resolve Job's seconds to a training's days.
_STAGE_SECONDS = (5, 15, 60, 300, 900, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 24 * 3600, 3 * 24 * 3600, 7 * 24 * 3600)
_ROUND_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_GAP_SECONDS = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)


class Metrics:
    """One operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._stage_duration = Histogram(
            "rlhf_stage_duration_seconds",
            "Of stages that succeeded, from the first start to the end, all attempts",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=self.registry,
        )
        self._stage_queue = Counter(
            "rlhf_stage_queue_seconds", "From the creation of attempts to their start", ["stage"], registry=self.registry
        )
        self._stage_gpu = Counter("rlhf_stage_gpu_seconds", "GPUs held times seconds held", ["stage"], registry=self.registry)
        self._stage_gap = Histogram(
            "rlhf_stage_gap_seconds",
            "From the operator's being told that a Job finished to its having created the next one",
            buckets=_GAP_SECONDS,
            registry=self.registry,
        )
        self._reconcile = Histogram(
            "rlhf_reconcile_seconds", "Of one round of one run", buckets=_ROUND_SECONDS, registry=self.registry
        )
        self._reconcile_errors = Counter(
            "rlhf_reconcile_errors", "Rounds that ended in an exception, and were tried again", registry=self.registry
        )
        self._requests = Counter(
            "rlhf_api_requests", "Requests to the API server", ["verb", "resource", "code"], registry=self.registry
        )
        self._leader = Gauge("rlhf_leader", "1: this process holds the Lease", registry=self.registry)
        for stage in StageName:
            self._stage_queue.labels(stage.value)
            self._stage_gpu.labels(stage.value)

    def serve_runs(self, phases: Callable[[], Mapping[str, int]]) -> None:
        """`phases` is asked at each scrape: how many runs are in each phase."""
        self.registry.register(_Runs(phases))

    def serve_untouched(self, count: Callable[[], int]) -> None:
        words = "Runs that another version wrote, in words that this one does not know: left as they are"
        gauge = Gauge("rlhf_untouched_runs", words, registry=self.registry)
        gauge.set_function(count)

    def serve_queue(self, depth: Callable[[], int]) -> None:
        gauge = Gauge("rlhf_queue_depth", "Runs that wait for a worker", registry=self.registry)
        gauge.set_function(depth)

    def lead(self, leader: bool) -> None:
        self._leader.set(leader)

    def reconciled(self, seconds: float) -> None:
        self._reconcile.observe(seconds)

    def reconcile_failed(self) -> None:
        self._reconcile_errors.inc()

    def gap(self, seconds: float) -> None:
        self._stage_gap.observe(seconds)

    def requested(self, verb: str, resource: str, code: str) -> None:
        self._requests.labels(verb, resource, code).inc()

    def status_written(self, before: RLHFRunStatus, after: RLHFRunStatus) -> None:
        """Book what a status that was just written adds to the one before."""
        known = {(iteration, stage.name): stage for iteration, stage in stages_of(before)}
        for iteration, stage in stages_of(after):
            old = known.get((iteration, stage.name)) or StageStatus(name=stage.name, phase=Phase.PENDING)
            self._stage_queue.labels(stage.name.value).inc(max(0.0, stage.queue_seconds - old.queue_seconds))
            self._stage_gpu.labels(stage.name.value).inc(max(0.0, stage.gpu_seconds - old.gpu_seconds))
            if stage.phase is Phase.SUCCEEDED and old.phase is not Phase.SUCCEEDED:
                self._finished(stage)

    def page(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)

    def _finished(self, stage: StageStatus) -> None:
        """One that was adopted was not worked at: it has no duration."""
        if not stage.adopted and stage.start_time is not None and stage.completion_time is not None:
            seconds = (stage.completion_time - stage.start_time).total_seconds()
            self._stage_duration.labels(stage.name.value).observe(max(0.0, seconds))


class _Runs(Collector):
    """rlhf_runs{phase}, counted when asked: a count that is kept would have to be kept right."""

    def __init__(self, phases: Callable[[], Mapping[str, int]]) -> None:
        self._phases = phases

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("rlhf_runs", "Runs by phase", labels=["phase"])
        counts = self._phases()
        for phase in Phase:
            family.add_metric([phase.value], counts.get(phase, 0))
        yield family

    def describe(self) -> Iterator[Metric]:
        """Its name, without counting."""
        yield GaugeMetricFamily("rlhf_runs", "Runs by phase", labels=["phase"])
