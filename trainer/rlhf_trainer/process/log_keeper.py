"""The log of a stage's pod, kept in the store: so it can be read when the pod is gone.

    container's stdout <── log keeper <── one pipe <── stage, torchrun, ranks, vLLM's processes
                               └──────> store

The keeper is the parent of the stage's process, and so the container's first process: what a stage says as it crashes is read by
somebody who lives on, and native code that writes while it holds Python's lock never waits for a thread that needs that lock. It
passes signals on and ends as the stage does. A keeper that is killed takes the stage with it, as any first process does.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import logging
import os
import queue
import select
import signal
import termios
import threading
import time

from rlhf_api.conventions.log_names import LogName
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import RunRef
from rlhf_store import LogWriter, open_store
from rlhf_trainer.runtime import processes
from rlhf_trainer.runtime.logs import say_now

#: Of a log that is longer only its beginning and its end are kept.
HEAD_BYTES, TAIL_BYTES = 1 << 20, 7 << 20
#: How much of the end of a log a SIGKILL costs at most: of a short one, and of the longest. Each put is of the whole log.
EVERY_SECONDS, EVERY_SECONDS_AT_MOST = 30.0, 600.0
#: A log that is twice as long is put half as often: a pod that never falls silent puts so many bytes in each interval.
_BYTES_EACH_INTERVAL = 400_000
#: From the stage's end to ours, at most: a pod that is told to go has only so long.
END_SECONDS = 10.0
#: How long one put waits for a store that is away: less than END_SECONDS, so that the store's own words are told.
_RETRY_SECONDS = 8.0

_PASSED_ON = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})
_STDOUT, _STDERR = 1, 2
_CHUNK = 1 << 16


def keep_log(storage: Storage, run: RunRef, name: LogName, *, every: float = EVERY_SECONDS) -> None:
    """Returns in a new process, which goes on as the stage; this one ends with it. Call it before there is any other thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    read_end, write_end = os.pipe()
    keeper = os.getpid()
    # Whoever started us may have no use for the ends of children; we have.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        # A sandbox may lack what only the parent needs: then the stage is to know, and not to be started for nothing.
        os.close(os.pidfd_open(keeper))
        waiting = signal.sigpending() & _PASSED_ON
        stage = os.fork()
    except OSError as error:
        _say(f"this log is not kept in the store, and the stage goes on: there can be no process for it ({error.strerror})")
        os.close(read_end)
        os.close(write_end)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    if stage == 0:
        processes.die_with(keeper)
        os.close(read_end)
        os.dup2(write_end, _STDOUT)
        os.dup2(write_end, _STDERR)
        os.close(write_end)
        # A child has none of the signals that wait for its parent, and may have ended before they are passed on.
        for number in waiting:
            os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os.close(write_end)
    # Threads never take a signal: the one that copies passes it on at once.
    upload = _Upload(storage, run, name, every)
    upload.start()
    ended, told = os.pidfd_open(stage), os.eventfd(0)
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _: _pass_on(ended, number, upload, told))
    # What came since the process began is passed on now.
    signal.pthread_sigmask(signal.SIG_SETMASK, before - _PASSED_ON)
    unsaid = _copy(read_end, ended, told, upload)
    deadline = time.monotonic() + END_SECONDS
    upload.finish()
    _write_until(deadline, unsaid)
    upload.wait(deadline)
    code = os.waitstatus_to_exitcode(os.waitpid(stage, 0)[1])
    # 128 + the signal, as a kubelet and a shell report it.
    os._exit(code if code >= 0 else 128 - code)


class BoundedLog:
    """The first HEAD_BYTES and the last TAIL_BYTES of what was added. Safe to share between threads."""

    def __init__(self) -> None:
        self.total = 0
        self._head, self._tail = bytearray(), bytearray()
        self._lock = threading.Lock()

    def add(self, data: bytes) -> None:
        with self._lock:
            self.total += len(data)
            room = HEAD_BYTES - len(self._head)
            self._head += data[:room]
            self._tail += data[room:]
            del self._tail[:-TAIL_BYTES]

    def content(self) -> tuple[bytes, int]:
        """With one line in place of what was left out; and the total that it was made of."""
        with self._lock:
            left_out = self.total - len(self._head) - len(self._tail)
            between = f"\n... {left_out} bytes of this log were not kept ...\n".encode() if left_out else b""
            return b"".join((self._head, between, self._tail)), self.total


def interval(every: float, size: int) -> float:
    """Seconds between two puts of a log of `size` bytes, `every` for a short one."""
    longer = every * max(1.0, min(size, HEAD_BYTES + TAIL_BYTES) / _BYTES_EACH_INTERVAL)
    return min(longer, max(every, EVERY_SECONDS_AT_MOST))


class _Upload:
    """Puts the log every so often, and at the end. Whatever goes wrong with it is said once and changes nothing for the stage."""

    def __init__(self, storage: Storage, run: RunRef, name: LogName, every: float) -> None:
        self.log = BoundedLog()
        self._storage, self._run, self._name, self._every = storage, run, name, every
        self._told: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """True: the stage has ended. A queue, for a signal's handler may put into it whatever it has interrupted."""
        self._thread = threading.Thread(target=self._work, name="log-upload", daemon=True)
        self._failed = False

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:  # So many threads are not allowed here.
            self._tell(str(error))

    def finish(self) -> None:
        """Nothing is added any more."""
        self._told.put(True)

    def hurry(self) -> None:
        """Put what there is now: the pod may not get the time to do it later."""
        self._told.put(False)

    def wait(self, deadline: float) -> None:
        """For the last put; until time.monotonic() is `deadline` at most."""
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._tell(f"the store did not take it within {END_SECONDS:.0f} s of the stage's end")

    def _work(self) -> None:
        # What the store logs of its retries is nothing to the reader of a stage's log.
        logging.disable()
        writer: LogWriter | None = None
        kept, over = -1, False
        while not over:
            try:
                # First of all, so that the end does not wait for the import of an S3 client, and for the object's name: the logs of
                # pods that followed each other are told apart by the order in which they began.
                writer = writer or LogWriter(open_store(self._storage, retry_seconds=_RETRY_SECONDS), self._run, self._name)
                over = kept >= 0 and self._wait(kept)
                content, total = self.log.content()
                if total > kept:
                    kept = max(kept, 0)
                    writer.put(content)
                    kept = total
            except Exception as error:
                self._tell(str(error))
                over = over or (writer is None and self._wait(0))

    def _wait(self, kept: int) -> bool:
        try:
            return self._told.get(timeout=interval(self._every, kept))
        except queue.Empty:
            return False

    def _tell(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            _say(f"this log is not kept in the store, or not all of it, and the stage goes on: {why}")


def _copy(source: int, ended: int, told: int, upload: _Upload) -> bytes:
    """From the pipe to stdout and to the log, until the stage has ended; returns what stdout has not taken by then."""
    unsaid, open_, stopping = b"", True, False
    while True:
        # Whoever writes waits for a stdout that is full, as without us. But not who was told to stop: it must get to its end.
        reading = [source] if open_ and (stopping or not unsaid) else []
        readable, writable, _ = select.select([*reading, ended, told], [_STDOUT] if unsaid else [], [])
        if writable:
            unsaid = _write_some(unsaid)
        if told in readable:
            os.eventfd_read(told)
            stopping = True
        if source in readable:
            more = os.read(source, _CHUNK)
            upload.log.add(more)
            unsaid = (unsaid + more)[-TAIL_BYTES:]
            open_ = bool(more)
        if ended in readable:
            break
    # What is in the pipe now, and no more: a child that the stage left behind may go on writing.
    there = array.array("i", [0])
    fcntl.ioctl(source, termios.FIONREAD, there)
    rest = os.read(source, there[0]) if there[0] else b""
    upload.log.add(rest)
    return unsaid + rest


def _write_until(deadline: float, data: bytes) -> None:
    while data and (left := deadline - time.monotonic()) > 0:
        if select.select([], [_STDOUT], [], left)[1]:
            data = _write_some(data)


def _write_some(data: bytes) -> bytes:
    """To stdout, which has room; returns the rest. Nothing more than a pipe with any room takes at once: this must not wait."""
    try:
        return data[os.write(_STDOUT, data[: select.PIPE_BUF]) :]
    except BlockingIOError:
        return data
    except OSError:
        # A disk that is full, a reader that is gone: what is said goes on being kept.
        return b""


def _pass_on(stage: int, number: int, upload: _Upload, told: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(stage, number)
    os.eventfd_write(told, 1)
    upload.hurry()


def _say(text: str) -> None:
    say_now(f"log keeper: {text}")
