"""Which store a URL names."""

from __future__ import annotations

from rlhf_api.resource.storage import Storage

from .store import RETRY_SECONDS, Store


def open_store(storage: Storage, *, retry_seconds: float = RETRY_SECONDS) -> Store:
    """The store of `spec.storage`. Nothing is read or written yet.

    Credentials come from where boto3 looks for them: environment, files, the node's identity. `retry_seconds` bounds
    how long one operation waits for a store that is away.
    """
    # boto3 takes 0.3 s to import; a file:// run does without.
    if storage.url.startswith("s3://"):
        from rlhf_store.backends.s3 import S3Store

        return S3Store(storage, retry_seconds=retry_seconds)
    from rlhf_store.backends.files import FileStore

    return FileStore(storage.url)
