"""Every stage, killed by SIGTERM and by SIGKILL; rlhfctl, ten times; two of them at once; the store gone for good."""

from __future__ import annotations

import random
import signal
import subprocess
from functools import partial

import pytest

from rlhf_api.words import Phase
from rlhfctl.exits import Exit
from support import processes
from support.kills import TRAININGS, assert_resumed, kill_and_finish, read_checkpoints
from support.mini import CHAIN, Case, MakeCase, SealedRun, stop
from support.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.s3, pytest.mark.faults, pytest.mark.timeout(1500)]
UP_TO_SAMPLE = CHAIN[: CHAIN.index("sample-1")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("stage", ["preflight-0", *CHAIN, "finalize-0"])
def test_a_stage_that_is_killed_is_tried_again_and_nothing_else_is(
    case: MakeCase, sealed: SealedRun, stage: str, number: signal.Signals
) -> None:
    killed = kill_and_finish(case, stage, number)
    assert_resumed(killed, sealed, stage, number)
    if stage in TRAININGS:
        assert read_checkpoints(killed, sealed.artifacts[stage].partition("/")[2])


def test_a_run_whose_rlhfctl_is_killed_ten_times_finishes_and_seals_each_artifact_once(case: MakeCase, sealed: SealedRun) -> None:
    """At moments that are drawn in requests to the store, not in seconds: they are spread over the run however fast it is."""
    one = case([])
    rng = random.Random(4)
    share = len(sealed.case.server.requests(sealed.case.storage)) // 10
    for kill in range(10):
        process = one.start()
        try:
            wanted = len(one.server.requests(one.storage)) + rng.randint(1, share)
            wait_until(partial(ended_or_asked, one, process, wanted), f"request {wanted}", seconds=300, every=0.1)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=3 * rng.random())
        finally:
            stop(process)
        wait_until(lambda: not processes.under(one.state), f"the end of every process after kill {kill + 1}", seconds=60)
    done = one.run()
    assert done.code == 0, done.out
    assert one.status().phase is Phase.SUCCEEDED
    manifests = one.manifests()
    assert len(set(manifests)) == len(manifests) == len(CHAIN)


def ended_or_asked(one: Case, process: subprocess.Popen[str], wanted: int) -> bool:
    return process.poll() is not None or len(one.server.requests(one.storage)) >= wanted


def test_a_second_rlhfctl_is_refused_and_told_who_holds_the_run(case: MakeCase) -> None:
    one = case(CHAIN)
    process = one.start()
    try:
        wait_until(lambda: processes.under(one.state) and (one.state / "runs" / "quickstart" / "lock").exists(), "the lock")
        case_of_the_second = type(one)(one.folder / "second", one.manifest, one.server, one.storage)
        case_of_the_second.folder.mkdir()
        (case_of_the_second.folder / "state").symlink_to(one.state)
        second = case_of_the_second.run()
        assert second.code == Exit.CONFLICT, second.out
        assert f"is driven by process {process.pid}" in second.err
        done = one.ended(process)
    finally:
        stop(process)
    assert done.code == 0, done.out
    assert not one.manifests()


def test_two_runs_of_the_same_work_at_once_seal_each_artifact_once(case: MakeCase, sealed: SealedRun) -> None:
    """Two state folders know nothing of each other; the store decides."""
    one = case([stage for stage in CHAIN if stage not in ("reference-1", "label-1")])
    folder = one.folder / "second"
    folder.mkdir()
    two = type(one)(folder, one.manifest, one.server, one.storage)
    first, second = one.start(), two.start()
    try:
        ends = one.ended(first), two.ended(second)
    finally:
        stop(first)
        stop(second)
    assert [done.code for done in ends] == [0, 0], ends
    manifests = one.manifests()
    assert len(set(manifests)) == len(manifests)
    assert one.status().checkpoint == two.status().checkpoint


def test_a_store_that_is_gone_for_good_is_named_and_the_same_command_goes_on_when_it_is_back(
    case: MakeCase, sealed: SealedRun
) -> None:
    one = case([stage for stage in CHAIN if stage != "label-1"], {"spec.retry.infrastructure": 0})
    process = one.start()
    try:
        processes.kill(one.at_work("label-1", process), signal.SIGCONT)
        one.server.stop()
        done = one.ended(process)
        assert done.code == Exit.RUN_FAILED, done.out
        assert one.storage.url in done.err
        assert "Check that the server runs and can be reached" in done.err
        assert 75 in [pod.exit_code for pod in one.pods("label-1")]
        assert "Traceback" not in done.out
    finally:
        stop(process)
        one.server.ensure_running()
    again = one.run()
    assert again.code == 0, again.out
    manifests = one.manifests()
    assert manifests.count(sealed.artifacts["label-1"]) == 1
    assert len(set(manifests)) == len(manifests)
