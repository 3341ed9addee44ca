"""Bad input through rlhfctl: its exit code, the one message, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_api.words import Phase, Reason
from rlhfctl.exits import Exit
from support.mini import MakeCase, read_manifest, write_manifest
from support.rlhfctl import rlhfctl


def test_an_invalid_manifest_is_refused_with_every_problem_before_anything_starts(tmp_path: Path, example_manifest: Path) -> None:
    changes = {"spec.iterations": 99, "spec.sample.completionsPerPrompt": 1, "spec.prompts.surce": 1}
    bad = write_manifest(tmp_path / "bad.yaml", read_manifest(example_manifest), changes)
    done = rlhfctl("run", "--local", "--state", str(tmp_path / "state"), str(bad))
    assert done.code == Exit.REFUSED
    for path in changes:
        assert path in done.err
    assert not (tmp_path / "state").exists()


@pytest.fixture
def example_manifest(tmp_path: Path) -> Path:
    """A valid one, of a world that need not exist."""
    manifest = {
        "apiVersion": "rlhf.dev/v1alpha1",
        "kind": "RLHFRun",
        "metadata": {"name": "small"},
        "spec": {
            "policy": {"model": {"uri": "file:///no/model"}},
            "reward": {"type": "Rule", "rule": {"entryPoint": "grades:judge"}},
            "prompts": {"source": {"uri": "file:///no/prompts.parquet"}},
            "evaluate": {"judge": {"type": "Rule", "rule": {"entryPoint": "grades:other"}}},
        },
    }
    return write_manifest(tmp_path / "good.yaml", manifest, {})


@pytest.mark.engine
@pytest.mark.s3
@pytest.mark.faults
@pytest.mark.timeout(600)
def test_what_preflight_finds_ends_the_run_with_one_message_and_put_right_the_same_command_goes_on(new_case: MakeCase) -> None:
    one = new_case({"spec.prompts.source.column": "question"})
    good = read_manifest(one.manifest)
    done = one.run()
    assert done.code == Exit.RUN_FAILED, done.out
    assert "preflight found 1 problem" in done.err
    assert "has no column 'question' (it has messages). Set prompts.source.column" in done.err
    assert "Traceback" not in done.out
    status = one.status()
    assert status.phase is Phase.FAILED
    assert [condition.reason for condition in status.conditions if condition.type == "Failed"] == [Reason.CONFIGURATION_ERROR]
    assert one.stage("preflight-0").attempt == 1, "a configuration error is not tried again"
    assert all("/.probe-" in key for key in one.put("")), "but for the probe, nothing was written"
    write_manifest(one.manifest, good, {"spec.prompts.source.column": "messages", "spec.policy.model.uri": "file:///no/model"})
    again = one.run()
    assert again.code == Exit.RUN_FAILED
    assert "file:///no/model is no model" in again.err
