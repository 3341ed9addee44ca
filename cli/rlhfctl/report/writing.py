"""A run's report as a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rlhf_api import RLHFRun
from rlhfctl.errors import CliError
from rlhfctl.results.collect import collect
from rlhfctl.results.store import open_store_of, store_errors

from .page import render


def page_of(run: RLHFRun) -> str:
    """The HTML page of a run.

    Raises:
        NoConnection, CliError: as `store_errors` has them.
    """
    with store_errors():
        return render(collect(run, open_store_of(run), datetime.now(UTC)))


def write(run: RLHFRun, path: Path) -> Path:
    """Write the page to `path`, whole or not at all; returns `path`. A link, a pipe, a device there is written to, and stays.

    Raises:
        CliError: the file cannot be written.
    """
    page = page_of(run)
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
