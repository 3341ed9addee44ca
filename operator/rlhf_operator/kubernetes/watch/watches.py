"""The watches: kopf, embedded, in a thread and event loop of its own.

kopf watches and nothing else: it writes nothing, keeps nothing on the objects, and knows nothing of other operators. It is started
again when it ends by itself, as it does where the API server answers what it does not expect.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import kopf

from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.requests import verb_and_resource
from rlhf_operator.kubernetes.telemetry.health import Heartbeats

from .relist import WATCHED

_logger = logging.getLogger(__name__)

_RESTART_SECONDS = 2.0
_PAGE = 100
_LOOP = "watches"


class _Waits:
    """Between the tries of a request: without end, for an API server that is away comes back. kopf iterates it anew each time."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.1, 0.2, 0.5, 1.0)
        while True:
            yield 2.0


def kopf_settings(silence_seconds: float, watch_seconds: float) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # The kinds are known and must be there when the watches start; with this kopf asks for no right on CRDs and Namespaces.
    settings.scanning.disabled = True
    settings.watching.inactivity_timeout = silence_seconds
    settings.watching.server_timeout = int(watch_seconds)
    settings.watching.connect_timeout = 5.0
    settings.watching.chunk_size = _PAGE
    settings.networking.connect_timeout = 5.0
    settings.networking.request_timeout = 60.0
    settings.networking.error_backoffs = _Waits()
    settings.queueing.idle_timeout = 1.0
    # The process ends itself.
    settings.process.ultimate_exiting_timeout = None
    for resource, selector in WATCHED.values():
        if selector is not None:
            # By the server: a filter of the handler would let every pod of the cluster come over the wire.
            settings.watching.label_selectors[resource.group, resource.version, resource.plural] = selector
    return settings


class Watches:
    """`registry` has the handlers. The connection is the cluster's own; each request of a watch is a heartbeat, and so is the list
    that it begins with: where it has to begin again and again, the server is away and not the watch.

    `listed` is told of each such list that was answered, for it may be empty and does not tell of what is gone. `watching` is set
    when all of them have been answered once, refusals too: a namespace may be gone.
    """

    def __init__(
        self,
        cluster: Cluster,
        registry: kopf.OperatorRegistry,
        settings: kopf.OperatorSettings,
        *,
        namespaces: tuple[str, ...],
        heartbeats: Heartbeats,
        answered: Callable[[str, str, bool, int], None],
        listed: Callable[[], None],
        watching: threading.Event,
    ) -> None:
        self._cluster = cluster
        self._registry = registry
        self._settings = settings
        self._namespaces = namespaces
        self._heartbeats = heartbeats
        self._answered = answered
        self._listed = listed
        self._watching = watching
        self._begun: set[str] = set()
        """Paths that were answered."""
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_kopf: asyncio.Event | None = None
        kopf.on.login(registry=registry)(self._login)
        # It says at each start that it does not see signals, as if nobody did.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)

    def run(self, ready: threading.Event) -> None:
        """Watch from when `ready` is set until `stop`."""
        while not self._stopping.is_set():
            if not ready.wait(1.0):
                continue
            try:
                asyncio.run(self._watch())
            except Exception:
                _logger.exception("The watches ended.", extra={"retry_in_seconds": _RESTART_SECONDS})
            finally:
                self._loop = self._stop_kopf = None
            self._stopping.wait(_RESTART_SECONDS)

    def stop(self) -> None:
        self._stopping.set()
        loop, stop_kopf = self._loop, self._stop_kopf
        if loop is not None and stop_kopf is not None:
            loop.call_soon_threadsafe(stop_kopf.set)

    async def _watch(self) -> None:
        self._stop_kopf = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._stopping.is_set():
            return
        within = 2 * (self._settings.watching.server_timeout or 0) + 60
        self._heartbeats.expect(_LOOP, 60)
        for path in self._paths():
            self._heartbeats.expect(_watch_of(path), within)
        beating = asyncio.create_task(self._beat())
        try:
            await kopf.operator(
                registry=self._registry,
                settings=self._settings,
                # It is told to nobody, for there is no peering; kopf's own would need the user to have a name.
                identity="rlhf-operator",
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=self._stop_kopf,
            )
        finally:
            beating.cancel()

    async def _beat(self) -> None:
        """The loop turns."""
        while True:
            self._heartbeats.beat(_LOOP)
            await asyncio.sleep(5)

    def _paths(self) -> Iterator[str]:
        for resource, _ in WATCHED.values():
            for namespace in self._namespaces or (None,):
                yield resource.path(namespace)

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        found = self._cluster.credentials
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=await asyncio.to_thread(self._tls)),
            proxy=found.proxy,
            middlewares=(self._send,),
        )
        return kopf.AiohttpSession(server=found.server, aiohttp_session=session)

    async def _send(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """Every request of kopf: with the token of the moment, counted, and as a heartbeat of the watch that it belongs to."""
        token = await asyncio.to_thread(self._cluster.token)
        if token is not None:
            request.headers["Authorization"] = token
        path, watch = request.url.path, "watch" in request.url.query
        self._heartbeats.beat(_watch_of(path))
        try:
            response = await handler(request)
        except aiohttp.ClientError:
            self._answered(request.method, path, watch, 0)
            raise
        self._answered(request.method, path, watch, response.status)
        if not watch and path in self._paths():
            self._heard(path, response)
        return response

    def _heard(self, path: str, response: aiohttp.ClientResponse) -> None:
        if response.ok:
            self._listed()
        if response.status < 500:
            self._begun.add(path)
            if self._begun.issuperset(self._paths()):
                self._watching.set()

    def _tls(self) -> ssl.SSLContext:
        found = self._cluster.credentials
        context = ssl.create_default_context(cafile=found.ca_file)
        # As the client does it: the authority of many a cluster does not name itself in its certificates.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if found.client_certificate_file is not None:
            context.load_cert_chain(found.client_certificate_file, found.client_key_file)
        if not found.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _watch_of(path: str) -> str:
    """The name of a watch's heartbeat."""
    _, resource = verb_and_resource("GET", path, True)
    _, inside, rest = path.partition("/namespaces/")
    return f"watch of {resource}" + (f" in {rest.partition('/')[0]}" if inside else "")
