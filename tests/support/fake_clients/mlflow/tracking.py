"""As much of MLflow as is asked of it, with its manners: a step that is told twice is there twice. Kept in a file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlflow.entities import Metric, Param


class MlflowClient:
    def __init__(self, tracking_uri: str) -> None:
        self._file = Path(tracking_uri.removeprefix("file://"))
        self._kept: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {"experiments": [], "runs": []}

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return SimpleNamespace(experiment_id=name) if name in self._kept["experiments"] else None

    def create_experiment(self, name: str) -> str:
        self._kept["experiments"].append(name)
        return name

    def search_runs(self, experiment_ids: Sequence[str], filter_string: str, max_results: int) -> list[SimpleNamespace]:
        asked = dict(re.findall(r"tags\.`([^`]+)` = '([^']*)'", filter_string))
        found = []
        for number, run in enumerate(self._kept["runs"]):
            if run["experiment"] in experiment_ids and asked.items() <= run["tags"].items():
                newest = {key: value for key, value, _ in run["metrics"]}
                found.append(SimpleNamespace(info=SimpleNamespace(run_id=str(number)), data=SimpleNamespace(metrics=newest)))
        return found[:max_results]

    def create_run(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> SimpleNamespace:
        run = {"experiment": experiment_id, "name": run_name, "tags": tags, "params": {}, "metrics": [], "terminated": 0}
        self._kept["runs"].append(run)
        return SimpleNamespace(info=SimpleNamespace(run_id=str(len(self._kept["runs"]) - 1)))

    def log_batch(self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()) -> None:
        assert len(params) <= 100
        run = self._kept["runs"][int(run_id)]
        run["params"] |= {param.key: param.value for param in params}
        run["metrics"] += [[metric.key, metric.value, metric.step] for metric in metrics]

    def set_terminated(self, run_id: str) -> None:
        self._kept["runs"][int(run_id)]["terminated"] += 1
        self._file.write_text(json.dumps(self._kept))
