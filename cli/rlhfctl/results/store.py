"""Opening the store of a run for a person who waits, with the credentials of their own environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rlhf_api import RLHFRun
from rlhf_store import Store, StoreError, Unavailable, open_store
from rlhfctl.errors import CliError, NoConnection

#: Not for the two minutes that a stage would wait for a store.
PATIENCE_SECONDS = 10.0


def open_store_of(run: RLHFRun, patience: float | None = None) -> Store:
    """`patience`: seconds, where it is not PATIENCE_SECONDS. What is read from it raises StoreError."""
    return open_store(run.spec.storage, retry_seconds=PATIENCE_SECONDS if patience is None else patience)


@contextmanager
def store_errors() -> Iterator[None]:
    """Give the store's errors their exit codes."""
    try:
        yield
    except Unavailable as error:
        raise NoConnection(f"the store cannot be reached: {error.what}", why=error.url, hints=(error.try_this,)) from error
    except StoreError as error:
        raise CliError(f"the store cannot be read: {error.what}", why=error.url, hints=(error.try_this,)) from error
