"""A damaged artifact, a full disk: a clear error that names the file, and nothing built on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhfctl.exits import Exit
from support.mini import CHAIN, Case, MakeCase, SealedRun, s3_client

pytestmark = [pytest.mark.engine, pytest.mark.s3, pytest.mark.faults, pytest.mark.timeout(1500)]
NO_RETRY = {"spec.retry.application": 0}


@pytest.mark.parametrize(
    ("damaged", "suffix", "reader"),
    [("sft-0", "model.safetensors", "evaluate-0"), ("sample-1", ".parquet", "label-1"), ("label-1", ".parquet", "reference-1")],
)
@pytest.mark.parametrize("how", ["one byte is another", "the end is missing"])
def test_a_damaged_artifact_is_named_and_nothing_is_built_on_it(
    case: MakeCase, sealed: SealedRun, damaged: str, suffix: str, reader: str, how: str
) -> None:
    one = case(CHAIN[: CHAIN.index(reader)], NO_RETRY)
    file = _file_of(one, sealed.artifacts[damaged], suffix)
    whole = file.read_bytes()
    file.write_bytes(_flipped(whole) if how == "one byte is another" else whole[:-100])
    done = one.run()
    assert done.code == Exit.RUN_FAILED, done.out
    assert file.name in done.err
    assert sealed.artifacts[damaged] in done.err
    assert "Remove the artifact's folder from the store" in done.err
    assert "Traceback" not in done.out
    assert one.stage(reader).phase == "Failed"
    assert not one.manifests()


def test_a_damaged_artifact_that_is_removed_is_made_again(case: MakeCase, sealed: SealedRun) -> None:
    one = case(CHAIN[: CHAIN.index("reference-1")], NO_RETRY)
    file = _file_of(one, sealed.artifacts["label-1"], ".parquet")
    file.write_bytes(_flipped(file.read_bytes()))
    assert one.run().code == Exit.RUN_FAILED
    client = s3_client(one.server)
    bucket, _, prefix = one.storage.url.removeprefix("s3://").partition("/")
    folder = f"{prefix}/{sealed.artifacts['label-1']}/"
    for entry in client.list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]:
        client.delete_object(Bucket=bucket, Key=entry["Key"])
    done = one.run()
    assert done.code == 0, done.out
    assert one.manifests().count(sealed.artifacts["label-1"]) == 1


@pytest.mark.parametrize("stage", ["sft-0", "sample-1", "train-1"])
def test_a_full_disk_is_said_so_and_with_more_room_the_same_command_goes_on(case: MakeCase, sealed: SealedRun, stage: str) -> None:
    """The state folder, and with it the scratch of every stage, on a file system that is too small for this one."""
    one = case([other for other in CHAIN if other != stage], NO_RETRY)
    one.state.mkdir()
    small = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    small += [f'mount -t tmpfs -o size=3m none "{one.state}" && exec "$@"', "sh"]
    done = one.run(within=small)
    assert done.code == Exit.RUN_FAILED, done.out
    assert "No space left on" in done.err
    assert "Free s" in done.err, "what to do"
    assert "Traceback" not in done.err.partition("error:")[2]
    assert not one.manifests()
    again = one.run()
    assert again.code == 0, again.out
    assert one.manifests().count(sealed.artifacts[stage]) == 1


def _file_of(one: Case, artifact: str, suffix: str) -> Path:
    """On the disk of the S3 server."""
    [file, *_] = sorted(path for path in one.server.object_file(f"{one.storage.url}/{artifact}").rglob(f"*{suffix}"))
    return file


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
