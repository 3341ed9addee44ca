"""Settings of the operator: environment variables RLHF_OPERATOR_*, read once. The chart writes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from rlhf_api.resource.run import ImagePullPolicy

from .installation import Installation

_PREFIX = "RLHF_OPERATOR_"
#: RLHF_OPERATOR_STAGE_USER: the image's own user, or the one that the platform picks.
_IMAGE_USER = "image"


class SettingsError(ValueError):
    """A variable has a value that cannot be used: which one, what stands there, what would be right."""


class LogFormat(StrEnum):
    JSON = "json"
    TEXT = "text"


@dataclass(frozen=True)
class LeaseSettings:
    namespace: str
    name: str
    identity: str
    """Of this process, and of no other that lives at the same time."""
    seconds: int
    """How long others wait after the last renewal before they take over."""

    @property
    def renew_seconds(self) -> float:
        """Between two renewals."""
        return self.seconds / 5

    @property
    def write_seconds(self) -> float:
        """After a renewal began, no write begins later than this: what is left of the Lease is for the write to arrive."""
        return self.seconds * 2 / 3


@dataclass(frozen=True)
class Settings:
    lease: LeaseSettings
    namespaces: tuple[str, ...] = ()
    """Watched; empty: all of the cluster."""
    installation: Installation = field(default_factory=Installation)
    workers: int = 16
    """Rounds at a time."""
    resync_seconds: float = 300.0
    """Between two full lists."""
    watch_silence_seconds: float = 70.0
    """A watch that told nothing for so long is opened again; bookmarks come every minute."""
    watch_seconds: float = 240.0
    """A watch is opened again after so long in any case: its heartbeat."""
    http_host: str = ""
    """Empty: every address of the machine, IPv4 and IPv6."""
    http_port: int = 8080
    """0: any free one."""
    log_format: LogFormat = LogFormat.JSON
    log_level: int = logging.INFO


def settings_from(environment: Mapping[str, str], *, default_identity: str, default_namespace: str | None) -> Settings:
    """Raises SettingsError. Defaults of the Lease are what only the process itself can know."""
    variables = _Variables(environment)
    namespace = variables.text("LEASE_NAMESPACE") or default_namespace
    if namespace is None:
        raise SettingsError(f"{_PREFIX}LEASE_NAMESPACE is not set, and this is no pod: write the namespace of the operator's Lease")
    lease = LeaseSettings(
        namespace=namespace,
        name=variables.text("LEASE_NAME") or "rlhf-operator",
        identity=variables.text("IDENTITY") or default_identity,
        seconds=variables.whole("LEASE_SECONDS", 15, least=1, most=3600),
    )
    return Settings(
        lease=lease,
        namespaces=tuple(sorted(variables.names("NAMESPACES"))),
        installation=_installation(variables),
        workers=variables.whole("WORKERS", 16, least=1, most=128),
        resync_seconds=variables.seconds("RESYNC_SECONDS", 300.0),
        watch_silence_seconds=variables.seconds("WATCH_SILENCE_SECONDS", 70.0),
        watch_seconds=variables.seconds("WATCH_SECONDS", 240.0),
        http_host=variables.text("HTTP_HOST") or "",
        http_port=variables.whole("HTTP_PORT", 8080, least=0, most=65535),
        log_format=variables.word("LOG_FORMAT", LogFormat) or LogFormat.JSON,
        log_level=logging.getLevelNamesMapping()[variables.word("LOG_LEVEL", _LogLevel) or _LogLevel.INFO],
    )


def _installation(variables: _Variables) -> Installation:
    image_user = variables.text("STAGE_USER") == _IMAGE_USER
    return Installation(
        image=variables.text("IMAGE"),
        image_pull_policy=variables.word("IMAGE_PULL_POLICY", ImagePullPolicy),
        allowed_service_accounts=variables.names("SERVICE_ACCOUNTS"),
        run_as=None if image_user else variables.whole("STAGE_USER", 65532, least=1, most=2**31 - 1),
    )


class _LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


_Word = TypeVar("_Word", bound=StrEnum)


class _Variables:
    """Reads one variable each; empty counts as absent, as a chart's value that was left empty arrives."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str) -> str | None:
        return self._environment.get(_PREFIX + name, "").strip() or None

    def names(self, name: str) -> frozenset[str]:
        return frozenset(part.strip() for part in (self.text(name) or "").split(",") if part.strip())

    def word(self, name: str, words: type[_Word]) -> _Word | None:
        text = self.text(name)
        if text is None:
            return None
        for word in words:
            if word.value == text:
                return word
        raise SettingsError(f"{_PREFIX}{name} is {text!r}; write one of {', '.join(words)}")

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        text = self.text(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise SettingsError(f"{_PREFIX}{name} is {text!r}; write a whole number from {least} to {most}")
        return int(text)

    def seconds(self, name: str, default: float) -> float:
        return float(self.whole(name, int(default), least=1, most=86400))
