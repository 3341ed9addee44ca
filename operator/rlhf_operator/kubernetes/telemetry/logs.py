"""Logs as JSON, an object a line, so that what is told of one run can be found by its name; or as text, for a terminal."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from rlhf_operator.kubernetes.settings import LogFormat

#: `extra` of a record that reaches the line: logger.info("…", extra={"run": "alignment/llama3-8b"}).
FIELDS = ("run", "kind", "seconds", "retry_in_seconds", "address", "lease")


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, the known fields of `extra`, and of an exception its type, words and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in FIELDS if hasattr(record, name)})
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["error"] = {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": self.formatException(record.exc_info),
            }
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("{asctime} {levelname:7} {message}", style="{")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        run = getattr(record, "run", None)
        return text if run is None else f"{text} run={run}"


def configure_logging(log_format: LogFormat, level: int, stream: TextIO = sys.stderr) -> None:
    """Everything of this process goes to one stream; kopf and the client speak up only where something is wrong."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    quiet = level if level <= logging.DEBUG else max(level, logging.WARNING)
    for name in ("kopf", "aiohttp", "asyncio", "kubernetes", "urllib3"):
        logging.getLogger(name).setLevel(quiet)
