"""Whether a component answers yet, and waiting for it."""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster.api import Api, ApiError
from cluster.errors import StartError
from cluster.processes import Component

#: On a machine that builds something beside it, the API server alone takes half a minute.
_PATIENCE_SECONDS = 120.0


def run(
    component: Component,
    command: Sequence[str | Path],
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> None:
    component.start(command, environment)
    wait_for(component, ready)


def wait_for(component: Component, ready: Callable[[], bool]) -> None:
    """StartError, with the end of its log, where it ends instead, or is not ready in two minutes."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        # First whether it lives: what answers might be somebody else.
        if not component.running:
            raise StartError(f"{component.name} ended as soon as it was started. {_words(component)}")
        if ready():
            return
        if time.monotonic() > deadline:
            raise StartError(f"{component.name} was not ready after {_PATIENCE_SECONDS:.0f} s. {_words(component)}")
        time.sleep(0.05)


def api_is_ready(api: Api) -> bool:
    try:
        api.get("/readyz")
    except (OSError, ApiError):
        return False
    return True


def node_is_ready(api: Api, name: str) -> bool:
    node = api.find(f"/api/v1/nodes/{name}") or {}
    return any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in node.get("status", {}).get("conditions", [])
    )


def answers(url: str, pair: Path | None = None) -> bool:
    """2xx, whoever signed its certificate: the components make their own. `pair`: our own, without .crt and .key."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if pair is not None:
        context.load_cert_chain(f"{pair}.crt", f"{pair}.key")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status < 300)
    except OSError:
        return False


def _words(component: Component) -> str:
    return f"The end of its log, {component.log}:\n{component.last_words()}"
