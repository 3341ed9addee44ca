"""Work on pieces in several processes, with the results in the order of the pieces: rendering holds Python's lock."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from rlhf_trainer.runtime.errors import ApplicationProblem
from rlhf_trainer.runtime.failures import from_exception
from rlhf_trainer.runtime.processes import die_with

_Piece = TypeVar("_Piece")
_Found = TypeVar("_Found")
#: Pieces for each process that are read before their turn.
_AHEAD = 2

#: Of a process of the pool: what it does to a piece.
_work: Callable[[Any], Any] | None = None


def in_order(work: Callable[[_Piece], _Found], pieces: Iterable[_Piece], processes: int) -> Iterator[_Found]:
    """`work` of each piece, here where `processes` is 1. What it raises is raised here, of the first piece that failed.

    Processes are forked, so `work` may be anything; pieces and results are pickled. They end with this one, however that ends.
    """
    if processes <= 1:
        yield from map(work, pieces)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_adopt, initargs=(work, os.getpid())) as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            for piece in pieces:
                waiting.append(pool.submit(_run, piece))
                if len(waiting) >= _AHEAD * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ApplicationProblem(
                "A process that renders and tokenises was killed, most likely for memory. Give the stage more of it, or fewer "
                "CPUs: there is one process for each.",
                reason="OOMKilled",
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _adopt(work: Callable[[Any], Any], parent: int) -> None:
    global _work
    die_with(parent)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _work = work


def _run(piece: Any) -> Any:
    if _work is None:
        raise AssertionError("a process of the pool was not told what to do")
    try:
        return _work(piece)
    except Exception as error:
        # Not every exception can be handed to another process, and one that cannot looks like a process that was killed.
        raise from_exception(error) from None
