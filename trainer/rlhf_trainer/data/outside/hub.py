"""The hub of models and data sets: what is asked of it, what its errors mean, and how long it is waited for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from rlhf_store.store import RETRY_SECONDS
from rlhf_trainer.runtime.errors import ConfigurationProblem, StageError, Transient, first_line
from rlhf_trainer.runtime.logs import log

from .headers import WEIGHTS, Part, ReadPart, write_headers

_T = TypeVar("_T")
_ANSWER_SECONDS = 30.0
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


@dataclass(frozen=True)
class Listing:
    """files: paths in the repository, at that commit."""

    commit: str
    files: tuple[str, ...]


def commit_of(repository: Repository, patience: Patience = Patience()) -> str:
    """What its revision points to now. Raises ConfigurationProblem, Transient."""
    return listing_of(repository, patience).commit


def listing_of(repository: Repository, patience: Patience = Patience()) -> Listing:
    """What its revision points to now, and which files that has. Raises ConfigurationProblem, Transient."""
    from huggingface_hub import HfApi

    def ask() -> Listing:
        api = HfApi(endpoint=_endpoint(), token=repository.token)
        info = api.repo_info(repository.name, repo_type=repository.kind, revision=repository.revision)
        return Listing(str(info.sha), tuple(sibling.rfilename for sibling in info.siblings or ()))

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


def fetch_without_weights(repository: Repository, patterns: Sequence[str], folder: Path, patience: Patience = Patience()) -> None:
    """Its files that match `patterns` into `folder`: links to a snapshot, and of each weights file the header alone.

    Raises ConfigurationProblem, Transient.
    """
    listing = listing_of(repository, patience)
    pinned = replace(repository, revision=listing.commit)
    files = [file for file in listing.files if any(PurePosixPath(file).match(pattern) for pattern in patterns)]
    weights = [file for file in files if PurePosixPath(file).match(WEIGHTS)]
    if len(weights) < len(files):
        snapshot = snapshot_of(pinned, [pattern for pattern in patterns if pattern != WEIGHTS], patience)
        for file in files:
            if file not in weights:
                link = folder / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((snapshot / file).resolve())

    def reader(file: str) -> ReadPart:
        return lambda start, length: part_of(pinned, file, start, length, patience)

    write_headers(folder, {file: reader(file) for file in weights}, f"hf://{repository.name}")


def part_of(repository: Repository, file: str, start: int, length: int, patience: Patience = Patience()) -> Part:
    """Of a file at its revision; also from a mirror that knows no ranges, of which no more is taken than that.

    Raises ConfigurationProblem, Transient.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(repository.name, file, repo_type=repository.kind, revision=repository.revision, endpoint=_endpoint())
    asked = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}

    def ask() -> Part:
        headers = build_hf_headers(token=repository.token) | asked
        with get_session().stream("GET", url, headers=headers, timeout=_ANSWER_SECONDS) as response:
            hf_raise_for_status(response)
            partial = response.status_code == 206
            size = response.headers.get("Content-Range" if partial else "Content-Length", "").rpartition("/")[2]
            if not size.isdecimal():
                raise ConfigurationProblem(f"The hub does not say how large {file} of {repository} is. Name another HF_ENDPOINT.")
            return Part(_taken(response.iter_bytes(), 0 if partial else start, length), int(size))

    return _patiently(repository, ask, patience)


def _taken(chunks: Iterable[bytes], start: int, length: int) -> bytes:
    """No further chunk is read than the one in which the part ends."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) >= start + length:
            break
    return bytes(data[start : start + length])


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
