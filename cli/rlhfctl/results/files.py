"""The small files that stages write for the report: evaluation's report.json, train's metrics.jsonl, reward's and judge's
held_out.json, benchmark's benchmark.json.

Read leniently: what a newer version adds is passed over, what is absent is not shown.
"""

from __future__ import annotations

import json
import math

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from rlhf_api.metrics import MetricValue

from .model import Curve

CURVE_KEYS = ("loss", "rewards/accuracies", "rewards/margins")


class _File(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class ExampleEntry(_File):
    prompt_id: str
    prompt: str
    response: str
    initial_response: str | None = None
    judge: float
    initial_judge: float | None = None
    reward: float | None = None


class Decoding(_File):
    """One way of decoding the test prompts."""

    judge_mean: MetricValue | None = None
    gain_vs_initial: MetricValue | None = None


class TestEntry(_File):
    prompts: int
    sampled: Decoding | None = None
    greedy: Decoding | None = None

    __test__ = False


class EvaluationFile(_File):
    """evaluation/<fingerprint>/report.json."""

    iterate: int
    examples: tuple[ExampleEntry, ...] = ()
    test: TestEntry | None = None
    counts: dict[str, int] = {}


class BenchmarkMetric(_File):
    value: float
    stderr: float | None = None


class BenchmarkTask(_File):
    """A task, or a group over its members."""

    name: str
    metrics: dict[str, BenchmarkMetric] = {}
    shots: int | None = None
    samples: int
    of_samples: int
    truncated: int = 0
    members: tuple[str, ...] = ()


class BenchmarkFile(_File):
    """benchmark/<fingerprint>/benchmark.json."""

    tasks: tuple[BenchmarkTask, ...] = ()


class HeldOutPart(_File):
    """A subset, or the pairs of which the chosen response is longer, shorter or about as long."""

    name: str
    pairs: int
    accuracy: MetricValue
    by_length: float


class CalibrationBin(_File):
    lower: float
    predictions: int
    predicted: float | None = None
    observed: float | None = None


class HeldOutFile(_File):
    """reward-model/<fingerprint>/held_out.json."""

    pairs: int
    prompts: int
    accuracy: MetricValue
    by_length: float
    mean_of_subsets: float
    expected_calibration_error: float
    calibration: tuple[CalibrationBin, ...] = ()
    lengths: tuple[HeldOutPart, ...] = ()
    subsets: tuple[HeldOutPart, ...] = ()


def read_curves(content: bytes, iteration: int) -> list[Curve]:
    """metrics.jsonl, TRL's keys, a line a step. A line that a killed process left half-written is passed over."""
    points: dict[str, list[tuple[int, float]]] = {key: [] for key in CURVE_KEYS}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        step = int(entry.get("step", number))
        for key in CURVE_KEYS:
            value = entry.get(key)
            if isinstance(value, int | float) and math.isfinite(value):
                points[key].append((step, float(value)))
    return [Curve(iteration, key, tuple(found)) for key, found in points.items() if found]
