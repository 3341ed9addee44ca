"""The Lease: of all operators that name the same one, one writes.

The holder renews it every fifth of its duration, and begins no write later than two thirds after its last renewal began; the rest
is for a write under way to arrive or be given up. The others wait for the whole duration after the last renewal that they saw, by
their own clocks: no two machines' clocks are compared. A holder that stops lets go of it at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.errors import AlreadyExists, ClusterError, Conflict, NotFound
from rlhf_operator.kubernetes.api.resources import LEASES
from rlhf_operator.kubernetes.settings import LeaseSettings

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Seen:
    """A state of the Lease, and when this process saw it first, by its own clock."""

    version: str
    holder: str
    seconds: int
    at: float


class Lease:
    """`clock` is monotonic, in seconds; `now` is what is written into the object, for people. `changed` is told, from the thread
    that steps, whether this process leads from now on.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: LeaseSettings,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        changed: Callable[[bool], None],
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._clock = clock
        self._now = now
        self._changed = changed
        self._seen: _Seen | None = None
        self._write_until = float("-inf")
        self._leading = False
        self._held = threading.Condition()

    def may_write(self) -> bool:
        return self._clock() < self._write_until

    def wait_until_held(self, timeout: float) -> bool:
        with self._held:
            return self._held.wait_for(self.may_write, timeout)

    def step(self) -> bool:
        """Renew it, or take it if it is free; whether this process holds it. Raises nothing that the API server may answer."""
        begun = self._clock()
        try:
            held = self._take(begun)
        except ClusterError as error:
            # What was held is held until its time is over; that the server is away is told by whoever has work there.
            _logger.warning("The Lease cannot be renewed: %s", error, extra={"lease": str(self)})
            held = self.may_write()
        self._tell(held and self.may_write())
        return self._leading

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Step until `stop`, then let go of it. An unexpected error in here must not end the renewals."""
        while not stop.is_set():
            try:
                self.step()
            except Exception:
                _logger.exception("A step of the Lease failed.", extra={"lease": str(self)})
            beat()
            stop.wait(self._settings.renew_seconds)

    def release(self) -> None:
        """Let go of it, if it is ours: the next one need not wait. To be called when nothing writes any more."""
        self._write_until = float("-inf")
        seen, self._seen = self._seen, None
        self._tell(False)
        if seen is None or seen.holder != self._settings.identity:
            return
        try:
            self._write(seen.version, {"holderIdentity": "", "renewTime": self._time()})
        except ClusterError as error:
            _logger.warning("The Lease was not released, so the next operator waits for its end: %s", error)

    def __str__(self) -> str:
        return f"{self._settings.namespace}/{self._settings.name}"

    def _take(self, begun: float) -> bool:
        settings = self._settings
        try:
            found = self._cluster.get(LEASES, settings.namespace, settings.name)
        except NotFound:
            return self._create(begun)
        seen = self._see(found)
        ours = seen.holder == settings.identity
        if seen.holder and not ours and self._clock() < seen.at + seen.seconds:
            self._write_until = float("-inf")
            return False
        spec: dict[str, Any] = {"leaseDurationSeconds": settings.seconds, "renewTime": self._time()}
        if not ours:
            taken = int(found.get("spec", {}).get("leaseTransitions") or 0) + 1
            spec |= {"holderIdentity": settings.identity, "acquireTime": spec["renewTime"], "leaseTransitions": taken}
        try:
            self._renewed(self._write(seen.version, spec), begun)
        except Conflict:
            # Somebody else wrote it: the next step sees who.
            return ours and self.may_write()
        return True

    def _create(self, begun: float) -> bool:
        settings, time = self._settings, self._time()
        spec = {
            "holderIdentity": settings.identity,
            "leaseDurationSeconds": settings.seconds,
            "acquireTime": time,
            "renewTime": time,
            "leaseTransitions": 0,
        }
        body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": {"name": settings.name}, "spec": spec}
        try:
            self._renewed(self._cluster.create(LEASES, settings.namespace, body), begun)
        except AlreadyExists:
            return False
        return True

    def _see(self, found: dict[str, Any]) -> _Seen:
        """The time of what was seen before already is when it was seen first."""
        version, spec = found["metadata"]["resourceVersion"], found.get("spec", {})
        if self._seen is None or self._seen.version != version:
            holder, seconds = spec.get("holderIdentity") or "", int(spec.get("leaseDurationSeconds") or 0)
            self._seen = _Seen(version, holder, seconds, self._clock())
        return self._seen

    def _renewed(self, written: dict[str, Any], begun: float) -> None:
        self._see(written)
        self._write_until = begun + self._settings.write_seconds
        with self._held:
            self._held.notify_all()

    def _write(self, version: str, spec: dict[str, Any]) -> dict[str, Any]:
        patch = {"metadata": {"resourceVersion": version}, "spec": spec}
        return self._cluster.merge_patch(LEASES, self._settings.namespace, self._settings.name, patch)

    def _time(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _tell(self, leading: bool) -> None:
        if leading == self._leading:
            return
        self._leading = leading
        words = "This process leads: it holds the Lease." if leading else "This process does not lead: it does not hold the Lease."
        _logger.info(words, extra={"lease": str(self)})
        self._changed(leading)
