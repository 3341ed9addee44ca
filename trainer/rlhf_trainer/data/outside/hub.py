"""The hub of models and data sets: what is asked of it, what its errors mean, and how long it is waited for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rlhf_store.store import RETRY_SECONDS
from rlhf_trainer.runtime.errors import ConfigurationProblem, StageError, Transient, first_line
from rlhf_trainer.runtime.logs import log

_T = TypeVar("_T")
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0
_CREDENTIALS = "Check credentials.secretRef (its HF_TOKEN); on this machine, the environment variable HF_TOKEN."


@dataclass(frozen=True)
class Patience:
    """How long a hub that is away is asked again, over all retries of one request; seconds."""

    seconds: float = RETRY_SECONDS
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Repository:
    """kind: model or dataset."""

    name: str
    kind: str
    revision: str | None
    token: str | None = field(repr=False)

    def __str__(self) -> str:
        return f"hf://{self.name}" + (f" at {self.revision}" if self.revision else "")


def commit_of(repository: Repository, patience: Patience = Patience()) -> str:
    """What its revision points to now. Raises ConfigurationProblem, Transient."""
    from huggingface_hub import HfApi

    def ask() -> str:
        api = HfApi(endpoint=_endpoint(), token=repository.token)
        return str(api.repo_info(repository.name, repo_type=repository.kind, revision=repository.revision).sha)

    return _patiently(repository, ask, patience)


def snapshot_of(repository: Repository, patterns: list[str] | None, patience: Patience = Patience()) -> Path:
    """A folder with its files, those that match `patterns`. Raises ConfigurationProblem, Transient."""
    from huggingface_hub import snapshot_download

    def ask() -> Path:
        folder = snapshot_download(
            repository.name,
            repo_type=repository.kind,
            revision=repository.revision,
            allow_patterns=patterns,
            token=repository.token,
            endpoint=_endpoint(),
        )
        return Path(folder)

    return _patiently(repository, ask, patience)


def _endpoint() -> str | None:
    """huggingface_hub reads it when it is imported, which a forked stage shares with others."""
    return os.environ.get("HF_ENDPOINT") or None


def _patiently(repository: Repository, ask: Callable[[], _T], patience: Patience) -> _T:
    since: float | None = None
    pause = _FIRST_PAUSE
    while True:
        try:
            return ask()
        except Exception as raised:
            error = _root(raised)
            if not _is_away(error):
                if (refusal := _refusal(repository, error)) is not None:
                    raise refusal from raised
                raise
            now = patience.clock()
            if since is None:
                since = now
                log.warning(
                    "The hub does not answer for %s (%s); trying again for %.0f s", repository, _told(error), patience.seconds
                )
            left = since + patience.seconds - now
            if left <= 0:
                raise Transient(
                    f"The hub is away for {repository}, and did not come back within {patience.seconds:.0f} s ({_told(error)}). "
                    "Check that it can be reached from here; the run goes on from where it was.",
                    reason="HubUnavailable",
                ) from raised
            patience.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)


def _root(error: BaseException) -> BaseException:
    """snapshot_download says "not found on the disk" and has the hub's own error as its cause."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_away(error: BaseException) -> bool:
    """Whether the same request may be answered later: no connection, a connection that broke off, 408, 429, 5xx."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled, XetDownloadError

    if isinstance(error, HfHubHTTPError):
        status = _status(error)
        return status in (408, 429) or status >= 500
    # HTTPError is the client library's own base: of an answer it is HfHubHTTPError, so here there was none.
    return isinstance(error, HTTPError | XetDownloadError | ConnectionError | TimeoutError) and not isinstance(
        error, OfflineModeIsEnabled
    )


def _refusal(repository: Repository, error: BaseException) -> StageError | None:
    """In our words what no retry helps against; None: it is not the hub's."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case GatedRepoError():
            told = f"{repository} is gated. Accept its terms, and give a token. {_CREDENTIALS}"
        case RevisionNotFoundError():
            told = f"{repository}: there is no such revision."
        case RepositoryNotFoundError():
            told = f"{repository} does not exist, or the token may not see it. Correct the name. {_CREDENTIALS}"
        case HfHubHTTPError() if _status(error) in (401, 403):
            told = f"The hub lets nobody with this token read {repository} ({_told(error)}). {_CREDENTIALS}"
        case HfHubHTTPError():
            told = f"The hub refuses {repository} ({_told(error)}). Check its name and its revision."
        case OfflineModeIsEnabled() | LocalEntryNotFoundError():
            told = f"{repository} is not in this machine's cache, and HF_HUB_OFFLINE forbids to ask the hub for it."
        case HFValidationError():
            told = f"{repository} is no name of a repository: {_told(error)}."
        case _:
            return None
    return ConfigurationProblem(told)


def _status(error: Any) -> int:
    response = getattr(error, "response", None)
    return 0 if response is None else int(response.status_code)


def _told(error: BaseException) -> str:
    status = _status(error)
    first = first_line(error, "")
    name = str(status) if status else type(error).__name__
    return f"{name}: {first}" if first else name
