"""The local backend: the same core, with a process group an attempt on this machine instead of a Job in a cluster.

    state = LocalState(Path(".rlhf"))
    run = run_local(run, state, cpu=True, listener=show, stop=threading.Event())

`run_local` takes the manifest's RLHFRun and blocks until the run is finished, paused or suspended, or until `stop` is set: then it
stops the stages (SIGTERM, so that they checkpoint), books them, and returns. It returns the run as it is then; `status.phase` and
`status.message` say how it stands. The same call resumes. It raises the errors of `errors.py`, of which RunLocked is exit code 6.
"""

from rlhf_operator.local.folder.lock import Holder
from rlhf_operator.local.folder.state import LocalState
from rlhf_operator.local.processes.machine import this_machine

from .errors import LocalError, RunConflict, RunLocked, RunNotFound, StateUnusable, UnknownWords
from .events import LocalEvent, LocalEventKind, Progress
from .supervise import run_local

__all__ = [
    "Holder",
    "LocalError",
    "LocalEvent",
    "LocalEventKind",
    "LocalState",
    "Progress",
    "RunConflict",
    "RunLocked",
    "RunNotFound",
    "StateUnusable",
    "UnknownWords",
    "run_local",
    "this_machine",
]
