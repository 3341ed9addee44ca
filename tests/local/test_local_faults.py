"""What is killed, lost or contested on one machine: a clean resume, nothing left behind, no finished work repeated."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import StageStatus
from rlhf_api.words import Phase, Reason, StageName
from rlhf_operator.local import LocalEventKind, RunConflict, RunLocked, StateUnusable
from rlhf_operator.local.processes.launcher import GuardedLauncher, Process
from support import local_supervisor
from support.local_runs import LocalWorld, ShiftedClock, alive, wait_until

SEALED = ["evaluate-0", "sample-1", "label-1", "reference-1", "train-1", "evaluate-1"]


@pytest.fixture
def world(tmp_path: Path) -> LocalWorld:
    return LocalWorld(tmp_path)


def supervisor(world: LocalWorld, **changes: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, local_supervisor.__file__, str(world.folder), json.dumps(changes)])


def train_of(run: RLHFRun) -> StageStatus:
    assert run.status is not None
    return next(stage for stage in run.status.iterations[0].stages if stage.name is StageName.TRAIN)


def assert_finished_once(world: LocalWorld, run: RLHFRun) -> None:
    assert run.status is not None
    assert run.status.phase is Phase.SUCCEEDED, run.status.message
    assert world.notes("sealed") == SEALED


def test_stages_die_with_a_supervisor_that_is_killed_and_the_run_resumes(world: LocalWorld) -> None:
    world.plan("train-1", "hang with-child")
    process = supervisor(world)
    stage = world.hanging()
    child = int(world.notes("children")[0])
    process.kill()
    process.wait()
    wait_until(lambda: not alive(stage) and not alive(child), "the stage and its child to die")
    before = world.starts()
    left = list(world.state.run_folder("tiny").glob("attempts/*/scratch-*"))
    assert left

    run = world.run()
    assert not [folder for folder in left if folder.exists()]
    assert_finished_once(world, run)
    assert world.starts()[len(before) :] == ["resolve:train-1", "train-1", "evaluate-1", "finalize-0"]
    assert (train_of(run).infrastructure_retries, train_of(run).application_retries) == (1, 0)


def test_a_stop_lets_the_stage_checkpoint_and_uses_no_budget(world: LocalWorld) -> None:
    world.plan("train-1", "hang with-child")
    background = world.in_background()
    stage = world.hanging()
    world.stop.set()
    stopped = background.result()
    assert not alive(stage)
    assert not alive(int(world.notes("children")[0]))
    assert stopped.status is not None
    assert stopped.status.phase is Phase.SUSPENDED
    assert "run it again" in stopped.status.message

    world.stop.clear()
    run = world.run()
    assert_finished_once(world, run)
    assert (train_of(run).attempt, train_of(run).infrastructure_retries) == (3, 0)


def test_sigterm_to_the_supervisor_process_stops_it_in_order(world: LocalWorld) -> None:
    world.plan("train-1", "hang")
    process = supervisor(world)
    stage = world.hanging()
    process.terminate()
    assert process.wait() == 1
    assert not alive(stage)
    assert world.state.load("tiny").status is not None
    assert_finished_once(world, world.run())


def test_a_second_supervisor_is_refused_and_told_of_the_first(world: LocalWorld) -> None:
    world.plan("train-1", "hang")
    process = supervisor(world)
    world.hanging()
    with pytest.raises(RunLocked) as refused:
        world.run()
    assert refused.value.pid == process.pid
    holder = world.state.holder("tiny")
    assert holder is not None
    assert holder.pid == process.pid
    assert supervisor(world).wait() == 6
    process.kill()
    process.wait()
    assert world.state.holder("tiny") is None
    assert_finished_once(world, world.run())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stage_that_is_killed_is_infrastructure(world: LocalWorld, number: int) -> None:
    world.plan("train-1", "hang")
    background = world.in_background()
    os.kill(world.hanging(), number)
    run = background.result()
    assert_finished_once(world, run)
    assert (train_of(run).infrastructure_retries, train_of(run).application_retries) == (1, 0)


@pytest.mark.parametrize("problem", ["wait", "thread"])
def test_a_stage_that_cannot_be_watched_counts_as_killed_and_is_tried_again(
    world: LocalWorld, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    """On a machine that has no descriptor or no thread left; the run would wait for it without end."""
    if problem == "wait":
        run = world.run(launcher=Unwatchable())
    else:
        monkeypatch.setattr(threading.Thread, "start", without_the_first_waiter(threading.Thread.start))
        run = world.run()
    assert_finished_once(world, run)
    assert run.status is not None
    assert run.status.stages[0].infrastructure_retries == 1


class Unwatchable:
    """Starts what it should; the first process cannot be waited for."""

    def __init__(self) -> None:
        self._launcher = GuardedLauncher()
        self._first = True

    def launch(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        process = self._launcher.launch(command, environment, log)
        if self._first:
            self._first = False
            process.wait = _no_descriptor  # type: ignore[method-assign]
        return process


def _no_descriptor() -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def without_the_first_waiter(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    left = [1]

    def start_or_not(thread: threading.Thread) -> None:
        if thread.name.startswith("wait-") and left and left.pop():
            raise RuntimeError("can't start new thread")
        start(thread)

    return start_or_not


def test_a_stage_that_the_kernel_killed_for_memory_is_an_application_error(world: LocalWorld) -> None:
    world.plan("train-1", "hang")
    background = world.in_background(world.manifest(retry={"application": 0}))
    stage = world.hanging()
    world.oom_kills += 1
    os.kill(stage, signal.SIGKILL)
    run = background.result()
    assert run.status is not None
    assert run.status.phase is Phase.FAILED
    assert train_of(run).reason is Reason.OOM_KILLED
    assert "OOMKilled" in run.status.message


def test_a_stage_whose_guard_is_killed_dies_with_it(world: LocalWorld) -> None:
    world.plan("train-1", "hang with-child")
    background = world.in_background()
    stage = world.hanging()
    guard = int(Path(f"/proc/{stage}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    assert_finished_once(world, background.result())
    assert not alive(stage)
    assert not alive(int(world.notes("children")[0]))


@pytest.mark.parametrize("plan", ["seal-and-die", "no-result"])
def test_a_stage_that_sealed_and_left_no_word_is_looked_up_and_not_run_again(world: LocalWorld, plan: str) -> None:
    world.plan("train-1", plan)
    run = world.run()
    assert_finished_once(world, run)
    assert world.starts().count("train-1") == 1
    assert train_of(run).adopted


def test_a_resolve_that_dies_is_tried_again(world: LocalWorld) -> None:
    world.plan("train-1", "no-result")
    world.plan("resolve:train-1", "die 9", "exit 75", "no-result")
    run = world.run()
    assert_finished_once(world, run)
    assert world.starts().count("train-1") == 1
    assert world.starts().count("resolve:train-1") == 4


def test_a_stage_that_ignores_sigterm_is_killed_after_its_grace(world: LocalWorld) -> None:
    world.plan("sample-1", "ignore-sigterm")
    background = world.in_background(world.manifest(sample={"pod": {"terminationGracePeriodSeconds": 0}}))
    stage = world.hanging()
    world.stop.set()
    run = background.result()
    assert not alive(stage)
    assert run.status is not None
    assert run.status.phase is Phase.SUSPENDED


def test_cancel_in_the_manifest_stops_a_run_that_works(world: LocalWorld) -> None:
    world.plan("train-1", "hang")
    background = world.in_background()
    stage = world.hanging()
    manifest = world.state.run_folder("tiny") / "run.yaml"
    fields = yaml.safe_load(manifest.read_text())
    fields["spec"]["cancel"] = True
    beside = manifest.with_suffix(".new")
    beside.write_text(yaml.safe_dump(fields))
    beside.replace(manifest)
    run = background.result()
    assert not alive(stage)
    assert run.status is not None
    assert run.status.phase is Phase.CANCELLED


def test_a_manifest_may_change_only_what_may_change(world: LocalWorld) -> None:
    gates = [{"name": "look", "metric": "winRateVsInitial", "max": 0.55, "action": "Pause"}]
    world.run(world.manifest(gates=gates))
    with pytest.raises(RunConflict) as refused:
        world.run(world.manifest(gates=gates, seed=7, train={"maxLength": 99}))
    assert refused.value.fields == ("spec.seed", "spec.train.maxLength")
    approvals = [{"gate": "look", "iteration": number} for number in (1, 2)]
    run = world.run(world.manifest(gates=gates, approvals=approvals, iterations=2))
    assert run.status is not None
    assert run.status.phase is Phase.SUCCEEDED
    assert world.starts().count("train-2") == 1
    assert world.starts().count("train-1") == 1


def test_shards_that_wait_for_their_turn_are_not_held_against_the_run(world: LocalWorld) -> None:
    world.cores = 1
    world.plan("sample-1-0", "progress 1 2")
    clock = ShiftedClock()
    background = world.in_background(world.manifest(sample={"shards": 2, "parallelism": 2}, pendingDeadlineSeconds=60), clock=clock)
    world.hanging()
    clock.ahead = timedelta(hours=1)
    looks = clock.looks
    wait_until(lambda: clock.looks > looks + 6, "some rounds an hour later")
    (world.folder / "fake" / "go-on").touch()
    assert_finished_once(world, background.result())


def test_time_in_which_nobody_drove_the_run_is_no_work(world: LocalWorld) -> None:
    world.plan("train-1", "hang")
    process = supervisor(world, activeDeadlineSeconds=3600)
    world.hanging()
    process.kill()
    process.wait()
    run = world.run(world.manifest(activeDeadlineSeconds=3600), clock=ShiftedClock(timedelta(days=3)))
    assert_finished_once(world, run)


#: The command on a file system that is too small, and once more when it has grown; the code is that of the first.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=$2k none "$1" && disk=$1 && shift 2 || exit 98
"$@"
first=$?
mount -o remount,size=4m "$disk" && "$@" && exit $first
exit 99
"""


@pytest.mark.processes
@pytest.mark.parametrize("kibibytes", [12, 28, 44, 64, 96])
def test_a_full_disk_is_said_so_wherever_it_is_met_and_with_more_room_the_run_goes_on(world: LocalWorld, kibibytes: int) -> None:
    state = world.folder / "state"
    state.mkdir()
    small = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", str(state), str(kibibytes)]
    command = [sys.executable, local_supervisor.__file__, str(world.folder)]
    done = subprocess.run([*small, *command], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 7, done.stderr
    assert "No space left on device" in done.stderr
    assert "free some space and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert world.notes("sealed") == SEALED


def test_progress_reaches_the_listener(world: LocalWorld) -> None:
    world.plan("train-1", "progress 3 12")
    background = world.in_background()
    world.hanging()
    wait_until(lambda: LocalEventKind.PROGRESS in world.kinds(), "progress")
    shown = world.state.progress_of(world.state.load("tiny"))
    (world.folder / "fake" / "go-on").touch()
    background.result()
    [event] = [event for event in world.events if event.kind is LocalEventKind.PROGRESS]
    assert event.progress == shown
    assert shown is not None
    assert (shown.done, shown.total, shown.unit) == (3, 12, "steps")
    assert (event.stage, event.iteration) == (StageName.TRAIN, 1)


def test_a_state_folder_that_cannot_be_made_is_said_so(world: LocalWorld) -> None:
    (world.folder / "state").write_text("not a folder")
    with pytest.raises(StateUnusable, match="choose another folder"):
        world.run()


def test_a_status_that_is_damaged_is_said_so(world: LocalWorld) -> None:
    world.run()
    (world.state.run_folder("tiny") / "status.json").write_text("{")
    with pytest.raises(StateUnusable, match=r"status\.json"):
        world.run()
