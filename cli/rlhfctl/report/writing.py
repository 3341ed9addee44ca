"""A run's report as a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rlhf_api import RLHFRun
from rlhf_store import StoreError, Unavailable, open_store
from rlhfctl.errors import CliError, NoConnection
from rlhfctl.results.collect import collect

from .page import render

#: A person waits for a report: not for the two minutes that a stage would wait for a store.
RETRY_SECONDS = 10.0


def page_of(run: RLHFRun) -> str:
    """The HTML page of a run.

    Raises:
        NoConnection: the store is away.
    """
    try:
        store = open_store(run.spec.storage, retry_seconds=RETRY_SECONDS)
        return render(collect(run, store, datetime.now(UTC)))
    except Unavailable as error:
        raise NoConnection(f"the store cannot be reached: {error.what}", why=error.url, hints=(error.try_this,)) from error
    except StoreError as error:
        raise CliError(f"the store cannot be read: {error.what}", why=error.url, hints=(error.try_this,)) from error


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
