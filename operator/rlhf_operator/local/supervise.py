"""run_local: drive one run to its end on this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rlhf_api.run import RLHFRun

from .events import LocalEvent
from .state import LocalState


def run_local(
    run: RLHFRun, state: LocalState, *, cpu: bool, listener: Callable[[LocalEvent], None], stop: threading.Event
) -> RLHFRun:
    raise NotImplementedError
