"""What can go wrong with a store: one tree.

StoreError
├── NotFound                      no such object
│   └── Incomplete                no such artifact, or a file of it is gone            (configuration)
├── AlreadyExists                 a conditional put lost against an object that is there
├── Corrupted                     size or digest is not what the manifest says
├── Unavailable                   away for longer than its own retries           (transient)
├── DiskFull
├── AccessDenied                  wrong or missing credentials, or not enough rights   (configuration)
├── NoSuchBucket                                                                       (configuration)
├── WrongRegion                                                                        (configuration)
├── WrongEndpoint                 not an S3 server, or its certificate is not trusted  (configuration)
├── NotWritable                   read-only file system or folder                      (configuration)
└── ConditionalWritesUnsupported  the server ignores or refuses If-None-Match          (configuration)
"""

# ruff: noqa: N818 - `except NotFound` reads better than NotFoundError, and httpx does the same.

from __future__ import annotations

from typing import ClassVar


class StoreError(Exception):
    """`what` happened, to which object (`url`), and what to do (`advice`)."""

    transient: ClassVar[bool] = False
    """Trying again later may help: a stage exits with 75."""
    configuration: ClassVar[bool] = False
    """Trying again does not help before something is changed: a stage exits with 64."""
    advice: ClassVar[str] = ""
    """What to do, where the place that raises it does not know better."""

    def __init__(self, what: str, url: str, advice: str | None = None) -> None:
        self.what = what
        self.url = url
        self.try_this = type(self).advice if advice is None else advice
        super().__init__(f"{url}: {what}." + (f" {self.try_this}" if self.try_this else ""))


class NotFound(StoreError):
    advice = "Check the URL."


class Incomplete(NotFound):
    """Whoever needs it finds it so in every attempt, until a person has it made again."""

    configuration = True
    advice = "Delete the run and begin it again, with what it finds in the store: the stage that makes this then runs again."


class AlreadyExists(StoreError):
    pass


class Corrupted(StoreError):
    advice = "Remove the artifact's folder from the store, so that its stage makes it again, and check the disk or bucket."


class Unavailable(StoreError):
    transient = True
    advice = "Check that the server runs and can be reached from here; the run goes on from where it was."


class DiskFull(StoreError):
    advice = "Free space there, or choose a place with more room."


class AccessDenied(StoreError):
    configuration = True
    advice = (
        "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (spec.storage.credentials), "
        "and that they may get, put, list and delete objects there."
    )


class NoSuchBucket(StoreError):
    configuration = True
    advice = "Make the bucket, or correct spec.storage.url; check spec.storage.endpointURL too."


class WrongRegion(StoreError):
    configuration = True
    advice = "Set spec.storage.region to the bucket's region."


class WrongEndpoint(StoreError):
    configuration = True
    advice = (
        "Check spec.storage.endpointURL. Where the server's certificate is from an authority of your own, name its certificates: "
        "spec.storage.caBundle in a cluster, the environment variable AWS_CA_BUNDLE on this machine."
    )


class NotWritable(StoreError):
    configuration = True
    advice = "Give this user the right to write there, or set spec.storage.url to a folder that can be written."


class ConditionalWritesUnsupported(StoreError):
    configuration = True
    advice = (
        "Use a store that honours `If-None-Match: *` on PUT (AWS S3, MinIO, Ceph, versitygw, a local file system): "
        "without it two attempts could both seal one artifact."
    )
