"""The one schema source: RLHFRun, StageConfig, StageResult, the words and the metrics. Imports none of our other packages."""

from rlhf_api.resource.run import RLHFRun, RLHFRunSpec
from rlhf_api.resource.status import RLHFRunStatus

from .metrics import Metric, MetricValue
from .stage import StageConfig, StageResult

__all__ = ["Metric", "MetricValue", "RLHFRun", "RLHFRunSpec", "RLHFRunStatus", "StageConfig", "StageResult"]
