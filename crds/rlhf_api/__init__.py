"""The one schema source: RLHFRun, StageConfig, StageResult, the words and the metrics. Imports none of our other packages."""

from .metrics import Metric, MetricValue
from .run import RLHFRun, RLHFRunSpec
from .stage import StageConfig, StageResult
from .status import RLHFRunStatus

__all__ = ["Metric", "MetricValue", "RLHFRun", "RLHFRunSpec", "RLHFRunStatus", "StageConfig", "StageResult"]
