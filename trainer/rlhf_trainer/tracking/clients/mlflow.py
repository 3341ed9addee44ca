"""MLflow: experiment = namespace, run name = run, tag rlhf.uid = uid; a run of theirs is one series."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rlhf_trainer.tracking.origin import Origin, flat

_UID, _SERIES = "rlhf.uid", "rlhf.series"
_STEP = "step"
#: What their servers take of a parameter, and of parameters at once.
_CHARACTERS, _AT_ONCE = 500, 100


class MLflow:
    def __init__(self, origin: Origin, environment: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric, run = Metric, origin.run
        self._client: Any = MlflowClient(tracking_uri=environment["MLFLOW_TRACKING_URI"])
        name = environment.get("MLFLOW_EXPERIMENT_NAME") or run.namespace
        experiment = self._client.get_experiment_by_name(name)
        place = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        tags = {_UID: run.uid, _SERIES: origin.name}
        own = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self._client.search_runs([place], filter_string=own, max_results=1)
        if found:
            self._id: str = found[0].info.run_id
            self.told = int(found[0].data.metrics.get(f"{origin.name}/{_STEP}", -1))
        else:
            self._id = self._client.create_run(place, run_name=run.name, tags=tags).info.run_id
            self.told = -1
            params = [Param(key, value[:_CHARACTERS]) for key, value in flat(origin.config).items()]
            for start in range(0, len(params), _AT_ONCE):
                self._client.log_batch(self._id, params=params[start : start + _AT_ONCE])
        self._own_step = f"{origin.name}/{_STEP}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        # A client that comes later reads of its own step where to go on.
        points = {**values, self._own_step: float(step)}
        self._client.log_batch(self._id, metrics=[self._metric(key, value, now, step) for key, value in points.items()])

    def close(self) -> None:
        self._client.set_terminated(self._id)
