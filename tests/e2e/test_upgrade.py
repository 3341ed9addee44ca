"""What an earlier version began goes on: manifest, store and state folder as 10d01fa wrote them, before the code had rooms.

runs/10d01fa.tar.xz is a quickstart's world of one iteration with the smallest model that the engine takes (one layer, one head of
32), and the state folder of `rlhfctl run --local` on it, which was stopped with Ctrl-C as train began. URLs of data are in
fingerprints, and they are absolute: so it has to lie where it lay.
"""

from __future__ import annotations

import fcntl
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase
from support.mini import NAME, artifacts_of, stages_of
from support.rlhfctl import Done, process, rlhfctl

pytestmark = pytest.mark.engine

ARCHIVE = Path(__file__).with_name("runs") / "10d01fa.tar.xz"
FOLDER = Path("/tmp/rlhf-state-of-10d01fa")
MANIFEST, STATE = FOLDER / "world" / "run.yaml", FOLDER / "state"
FINISHED = ("sft-0", "reward-0", "evaluate-0", "sample-1", "label-1", "reference-1")


@pytest.fixture(scope="module")
def unpacked() -> Iterator[None]:
    """One at a time on this machine."""
    with FOLDER.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(FOLDER, ignore_errors=True)
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(FOLDER, filter="data")
        try:
            yield
        finally:
            shutil.rmtree(FOLDER)


def status(state: Path) -> RLHFRunStatus:
    return RLHFRunStatus.model_validate_json((state / "runs" / NAME / "status.json").read_text())


def sealed() -> dict[str, bytes]:
    """The manifest of each artifact in the store; it has the digests of all files."""
    store = STATE / "store"
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("*/*/manifest.json")}


@dataclass(frozen=True)
class Resumed:
    before: RLHFRunStatus
    made: dict[str, bytes]
    """What was sealed before."""
    done: Done


@pytest.fixture(scope="module")
def resumed(unpacked: None) -> Resumed:
    before, made = status(STATE), sealed()
    return Resumed(before, made, process("run", "--local", "--state", str(STATE), str(MANIFEST)))


def test_it_is_shown(unpacked: None, tmp_path: Path) -> None:
    state = shutil.copytree(STATE, tmp_path / "state")
    shown = rlhfctl("status", NAME, "--state", str(state), "-o", "wide")
    assert (shown.code, shown.err) == (0, "")
    assert "evaluate" in shown.out
    assert rlhfctl("logs", NAME, "--state", str(state), "--stage", "sft").out


def test_it_goes_on_and_no_stage_is_done_again(resumed: Resumed) -> None:
    assert tuple(artifacts_of(resumed.before)) == FINISHED
    assert resumed.done.code == 0, resumed.done.err
    after = status(STATE)
    assert after.phase is Phase.SUCCEEDED
    assert {name: stages_of(after)[name] for name in FINISHED} == {name: stages_of(resumed.before)[name] for name in FINISHED}
    assert resumed.made.items() <= sealed().items()
