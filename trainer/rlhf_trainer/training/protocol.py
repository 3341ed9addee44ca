"""What the stage process, torchrun and the ranks tell each other, by files and variables."""

from __future__ import annotations

import json
from pathlib import Path

from rlhf_api.base import Model

#: The process id of the stage, for its agent, and of the agent, for its ranks: they must not outlive it.
STAGE_PID, AGENT_PID = "RLHF_STAGE_PID", "RLHF_AGENT_PID"
PEER_LOST = "PeerLost"
#: In the job's folder; its existence asks the ranks to checkpoint and end.
STOP_FILE = "stop"
#: In the job's folder, of this size: given up for the ranks' last words where the disk is full.
ROOM_FILE, ROOM = "room", 1 << 16


class RankError(Model):
    """<folder>/rank-<n>.json; exit: as rlhf_api.words.StageExit."""

    exit: int
    reason: str
    message: str


class Outcome(Model):
    """exits: by global rank, of the ranks that failed first; negative: the signal. problem: of the agent itself."""

    exits: dict[int, int] = {}
    problem: str | None = None


def leave_word(folder: Path, name: str, record: Model) -> None:
    """A file of this name that is whole, or none."""
    beside = folder / f".{name}"
    try:
        beside.write_text(json.dumps(record.to_wire()))
    except OSError:
        (folder / ROOM_FILE).unlink(missing_ok=True)
        beside.write_text(json.dumps(record.to_wire()))
    beside.replace(folder / name)
