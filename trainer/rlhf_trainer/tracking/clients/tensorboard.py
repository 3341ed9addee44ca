"""TensorBoard: event files under $TENSORBOARD_LOG_DIR/<namespace>/<run>/<uid>/<series>, written without torch."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf_trainer.tracking.origin import Origin


class TensorBoard:
    #: Its files are written anew by each attempt.
    told = -1

    def __init__(self, origin: Origin, environment: Mapping[str, str]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        run = origin.run
        folder = Path(environment["TENSORBOARD_LOG_DIR"]) / run.namespace / run.name / run.uid / origin.name
        folder.mkdir(parents=True, exist_ok=True)
        if origin.config:
            (folder / "work.json").write_text(json.dumps(origin.config, indent=2, sort_keys=True))
        self._started, self._session = False, SessionLog(status=SessionLog.START)
        self._writer: Any = EventFileWriter(str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if not self._started:
            # Readers forget what earlier files of the folder say of this step and of those behind it.
            self._writer.add_event(self._event(wall_time=time.time(), step=step, session_log=self._session))
            self._started = True
        summary = self._summary(value=[self._summary.Value(tag=key, simple_value=value) for key, value in values.items()])
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._writer.close()
