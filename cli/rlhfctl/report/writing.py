"""A run's report as a file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from rlhf_api import RLHFRun
from rlhfctl.errors import CliError
from rlhfctl.results.collect import collect
from rlhfctl.results.store import open_store_of, store_errors

from .page import render
from .tables import markdown, values


class Form(StrEnum):
    HTML = "html"
    MARKDOWN = "md"
    JSON = "json"


def form_of(path: Path) -> Form:
    """By how a file's name ends; a page, where that says nothing."""
    return {".md": Form.MARKDOWN, ".json": Form.JSON}.get(path.suffix.lower(), Form.HTML)


def text_of(run: RLHFRun, form: Form = Form.HTML) -> str:
    """The page of a run, or its tables.

    Raises:
        NoConnection, CliError: as `store_errors` has them.
    """
    with store_errors():
        report = collect(run, open_store_of(run), datetime.now(UTC))
    match form:
        case Form.HTML:
            return render(report)
        case Form.MARKDOWN:
            return markdown(report)
        case Form.JSON:
            return json.dumps(values(report), ensure_ascii=False, indent=2) + "\n"


def write(run: RLHFRun, path: Path, form: Form = Form.HTML) -> Path:
    """Write the report to `path`, whole or not at all; returns `path`. A link, a pipe, a device there is written to, and stays.

    Raises:
        CliError: the file cannot be written.
    """
    page = text_of(run, form)
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_text(page, encoding="utf-8")
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        try:
            beside.write_text(page, encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}", hints=("choose another file with -o",)) from error
    return path
