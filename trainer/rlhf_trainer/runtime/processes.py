"""What processes of a stage owe each other: none outlives the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import traceback
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
#: This process was forked from the fork server: what it forks has every import, what it starts has none.
warm = False


def exit_code_of(work: Callable[[], int]) -> int:
    """What `work` comes to in a forked process that ends with it; what it raises is printed, for nobody else would tell of it."""
    try:
        return work()
    except SystemExit as refused:
        return refused.code if isinstance(refused.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1


def die_with(parent: int) -> None:
    """This process gets SIGKILL when its parent `parent` ends, however that ends; at once where it has ended already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(-signal.SIGKILL & 0xFF)
