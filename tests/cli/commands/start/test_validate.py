"""validate: every problem at once, each where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rlhfctl.client.manifests import with_store
from rlhfctl.exits import Exit
from support import example_runs
from support.rlhfctl import rlhfctl


def _manifest(folder: Path, store: str | None = "s3://bucket/tiny", **changes: object) -> Path:
    spec = example_runs.spec(store or "", **changes)
    if store is None:
        del spec["storage"]
    path = folder / "run.yaml"
    path.write_text(
        yaml.safe_dump(
            {"apiVersion": "rlhf.dev/v1alpha1", "kind": "RLHFRun", "metadata": {"name": "tiny"}, "spec": spec}, sort_keys=False
        )
    )
    return path


def test_a_valid_manifest_is_said_to_be_valid(tmp_path: Path) -> None:
    done = rlhfctl("validate", str(_manifest(tmp_path)))
    assert (done.code, done.err) == (0, "")
    assert done.out == "✓ valid: tiny, 3 iterations, store s3://bucket/tiny\n"


def test_local_fills_in_the_store_before_it_validates(tmp_path: Path) -> None:
    path = _manifest(tmp_path, store=None)
    refused = rlhfctl("validate", str(path))
    assert refused.code == Exit.REFUSED
    assert "spec.storage" in refused.err
    assert "try: --local, if it is to run on this machine" in refused.err
    done = rlhfctl("validate", str(path), "--state", str(tmp_path / "state"))
    assert done.code == 0
    assert f"store file://{tmp_path}/state/store" in done.out


def test_every_problem_is_printed_with_its_line_and_what_stands_there(tmp_path: Path) -> None:
    path = _manifest(tmp_path, iterations=99, train={"loss": {"betta": 0.1}}, selection={"metric": "winRate"})
    done = rlhfctl("validate", str(path))
    said = " ".join(done.err.split())
    assert done.code == Exit.REFUSED
    assert done.out == ""
    assert "line 6: spec.iterations: 99:" in said
    assert "spec.train.loss.betta: 0.1: unknown field; did you mean beta?" in said
    assert 'spec.selection.metric: "winRate"' in said
    assert "has 3 problems" in said
    assert "rlhfctl explain iterations" in said or "rlhfctl explain train.loss" in said


def test_more_ranks_than_cores_is_a_problem_that_names_the_field(tmp_path: Path) -> None:
    path = _manifest(tmp_path, train={"compute": {"processesPerNode": 64}})
    assert rlhfctl("validate", str(path)).code == 0
    done = rlhfctl("validate", "--local", str(path), cwd=tmp_path)
    assert done.code == Exit.REFUSED
    assert "spec.train.compute.processesPerNode: 64" in " ".join(done.err.split())


def test_gpus_that_are_not_there_are_refused_unless_told_to_go_without(tmp_path: Path) -> None:
    path = _manifest(tmp_path, sample={"pod": {"resources": {"limits": {"nvidia.com/gpu": 64}}}})
    done = rlhfctl("validate", "--local", str(path), cwd=tmp_path)
    assert done.code == Exit.REFUSED
    assert "nvidia.com/gpu" in done.err
    assert rlhfctl("validate", "--local", "--cpu", str(path), cwd=tmp_path).code == 0


def test_a_manifest_may_come_from_a_pipe(tmp_path: Path) -> None:
    text = _manifest(tmp_path).read_text()
    assert rlhfctl("validate", "-", stdin=text).code == 0
    assert "stdin has 1 problem" in rlhfctl("validate", "-", stdin=text.replace("iterations: 3", "iterations: 0")).err


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "the manifest is empty"), (b"a: [", "not YAML"), (b"- 1", "not an object"), (b"\xff\xfe\x00", "no text in UTF-8")],
)
def test_what_is_no_manifest_is_refused_in_words(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    done = rlhfctl("validate", str(path))
    assert done.code == Exit.REFUSED
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_missing_file_is_not_found_and_its_neighbour_is_named(tmp_path: Path) -> None:
    _manifest(tmp_path)
    done = rlhfctl("validate", str(tmp_path / "rum.yaml"))
    assert done.code == Exit.NOT_FOUND
    assert "did you mean 'run.yaml'?" in done.err


@pytest.mark.parametrize("raw", [{}, {"spec": None}, {"spec": {"storage": "s3"}}, {"spec": {"storage": {"url": "s3://b/x"}}}])
def test_a_store_is_filled_in_only_where_there_is_none(raw: dict[str, object]) -> None:
    assert with_store(raw, "file:///s") == raw


def test_a_store_that_says_other_things_keeps_them() -> None:
    filled = with_store({"spec": {"storage": {"retention": {"samples": "Delete"}}}}, "file:///s")
    assert filled == {"spec": {"storage": {"retention": {"samples": "Delete"}, "url": "file:///s"}}}
