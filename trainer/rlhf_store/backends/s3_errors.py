"""What S3 and botocore say, in the words of `errors`.

Only the code and the message of an answer are repeated: neither holds a key, a signature or the URL of a signed request.
"""

from __future__ import annotations

from typing import Any, cast

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.exceptions import ConnectionError as NotConnected
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError, S3ValidationError

from rlhf_store.errors import (
    AccessDenied,
    AlreadyExists,
    ConditionalWritesUnsupported,
    Corrupted,
    DiskFull,
    NoSuchBucket,
    NotFound,
    StoreError,
    Unavailable,
    WrongEndpoint,
    WrongRegion,
)

from .retry import retryable_answer

#: The connection failed or ended early, before or after the headers of an answer.
TRANSPORT_ERRORS = (NotConnected, HTTPClientError, IncompleteReadError, ConnectionError, TimeoutError)
S3_ERRORS = (BotoCoreError, ClientError, RetriesExceededError, S3ValidationError, S3DownloadFailedError, *TRANSPORT_ERRORS)

_CLASSES: dict[str, type[StoreError]] = {
    "NoSuchKey": NotFound,
    "NotFound": NotFound,
    "404": NotFound,  # An answer to HEAD has no body, so its code is its status.
    "NoSuchBucket": NoSuchBucket,
    "InvalidBucketName": NoSuchBucket,
    "AccessDenied": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "XAdminUserNotFound": AccessDenied,  # versitygw says 404 for an unknown access key.
    "PreconditionFailed": AlreadyExists,
    "412": AlreadyExists,
    "AuthorizationHeaderMalformed": WrongRegion,
    "PermanentRedirect": WrongRegion,
    "TemporaryRedirect": WrongRegion,
    "IllegalLocationConstraintException": WrongRegion,
    "301": WrongRegion,
    "XMinioStorageFull": DiskFull,
    "QuotaExceeded": DiskFull,
    "507": DiskFull,
    "InvalidRange": Corrupted,
    "BadDigest": Corrupted,
    "XAmzContentSHA256Mismatch": Corrupted,
}
_WHAT: dict[type[StoreError], str] = {
    NotFound: "there is no such object",
    NoSuchBucket: "there is no such bucket",
    AlreadyExists: "an object is there already",
    WrongRegion: "the bucket is in another region",
    AccessDenied: "access denied",
    DiskFull: "the store has no room left",
    Corrupted: "the object is shorter or other than it should be",
    Unavailable: "the store is away, and did not come back while this tried again",
}
_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)


def translate(error: BaseException, url: str, *, conditional: bool = False) -> StoreError:
    """`conditional`: the request had `If-None-Match: *`."""
    match error:
        case ClientError():
            return _of_answer(cast("dict[str, Any]", error.response), url, conditional=conditional)
        case SSLError():
            return WrongEndpoint("the server's certificate is not trusted, or it does not speak TLS", url)
        case _ if isinstance(error, _CREDENTIALS):
            return AccessDenied("there are no credentials for it", url)
        case ProfileNotFound():
            return AccessDenied("there is no AWS profile of the name that AWS_PROFILE has", url, "Correct AWS_PROFILE.")
        case NoRegionError():
            return WrongRegion("no region is given", url)
        case FlexibleChecksumError():
            return Corrupted(f"the data's checksum is not the one that the server keeps ({error})", url)
        case ParamValidationError() if "bucket name" in str(error).lower():
            return NoSuchBucket("that is no name of a bucket", url)
        case RetriesExceededError():
            return Unavailable(f"{_WHAT[Unavailable]} ({type(error.last_exception).__name__})", url)
        case S3ValidationError() | S3DownloadFailedError():
            return Corrupted(f"the download does not add up ({error})", url)
        case _ if isinstance(error, TRANSPORT_ERRORS):
            return Unavailable(f"{_WHAT[Unavailable]} ({type(error).__name__})", url)
        case _:
            # A message of botocore may repeat what it was given; its name says enough.
            return WrongEndpoint(f"the request could not be made ({type(error).__name__})", url)


def _of_answer(answer: dict[str, Any], url: str, *, conditional: bool) -> StoreError:
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(answer.get("Error", {}).get("Code", "")) or str(status)
    message = str(answer.get("Error", {}).get("Message", "")).strip().rstrip(".")
    said = f"{code}: {message}" if message and message != code else code
    if conditional and (status == 501 or code in ("NotImplemented", "InvalidArgument", "InvalidRequest")):
        return ConditionalWritesUnsupported(f"the server refused `If-None-Match: *` ({said})", url)
    kind = _CLASSES.get(code)
    if kind is None and status in (401, 403):
        kind = AccessDenied
    if kind is None and retryable_answer(answer):
        kind = Unavailable
    if kind is None:
        return StoreError(f"the server refused the request ({said})", url, "Check spec.storage and the server's log.")
    if code == "RequestTimeTooSkewed":
        return AccessDenied(f"access denied ({said})", url, "Set this machine's clock.")
    return kind(f"{_WHAT[kind]} ({said})", url)
