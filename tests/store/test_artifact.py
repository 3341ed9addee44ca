"""An artifact is sealed once, found only when whole, and never read when damaged."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.stage import ArtifactRef
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import (
    ArtifactWriter,
    Corrupted,
    ExternalModel,
    Incomplete,
    ModelLineage,
    NotFound,
    Store,
    artifact_url,
    find_artifact,
    manifest_key,
    open_artifact,
    remove_files,
)
from support.artifacts import FINGERPRINT, KIND, keys, seal


def test_a_sealed_artifact_is_found_with_the_digest_of_its_manifest(store: Store) -> None:
    sealed = seal(store, {"a.txt": b"A"})

    found = find_artifact(store, KIND, FINGERPRINT)

    assert sealed.created
    assert found is not None
    assert not found.created
    assert (found.ref, found.manifest) == (sealed.ref, sealed.manifest)
    assert found.ref.digest == hashlib.sha256(store.get(manifest_key(KIND, FINGERPRINT))).hexdigest()


def test_nothing_is_found_before_it_is_sealed(store: Store) -> None:
    ArtifactWriter(store, KIND, FINGERPRINT).add_bytes(b"A", "a.txt")

    assert find_artifact(store, KIND, FINGERPRINT) is None
    with pytest.raises(NotFound, match=f"{KIND}/{FINGERPRINT}"):
        open_artifact(store, ArtifactRef(kind=KIND, fingerprint=FINGERPRINT, digest="0" * 64))


def test_a_folder_comes_back_with_the_same_names_and_bytes(store: Store, tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "original").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "original" / "weights.bin").write_bytes(bytes(range(256)) * 100)
    (model / "empty").write_bytes(b"")
    writer = ArtifactWriter(store, ArtifactKind.POLICY, FINGERPRINT)
    writer.add_folder(model)
    sealed = writer.seal(stage=StageName.TRAIN, iterate=1)

    folder = open_artifact(store, sealed.ref).fetch(tmp_path / "fetched")

    assert _tree(folder) == _tree(model)
    assert sum(entry.size for entry in sealed.manifest.files) == 2 + 25_600


def test_what_is_removed_on_purpose_is_not_missed_and_the_rest_is_still_verified(store: Store, tmp_path: Path) -> None:
    sealed = seal(store, {"a.txt": b"A", "master/b.txt": b"B", "c.txt": b"C"})
    artifact = open_artifact(store, sealed.ref)
    remove_files(artifact, ["master/b.txt", "never there"])
    remove_files(artifact, ["c.txt"])

    again = open_artifact(store, sealed.ref)
    assert again.manifest == sealed.manifest
    assert _tree(again.fetch(tmp_path / "fetched")) == {"a.txt": b"A"}
    assert not [key for key in keys(store) if key.endswith(("b.txt", "c.txt"))]
    (entry,) = [entry for entry in sealed.manifest.files if entry.path == "a.txt"]
    store.put(f"{KIND}/{FINGERPRINT}/{entry.key}", b"X")
    with pytest.raises(Corrupted, match=r"a\.txt"):
        again.fetch(tmp_path / "again")


def test_a_file_that_nobody_removed_on_purpose_is_missed(store: Store, tmp_path: Path) -> None:
    sealed = seal(store, {"a.txt": b"A", "b.txt": b"B"})
    store.delete([f"{KIND}/{FINGERPRINT}/{entry.key}" for entry in sealed.manifest.files if entry.path == "b.txt"])
    with pytest.raises(NotFound, match=r"b\.txt"):
        open_artifact(store, sealed.ref).fetch(tmp_path / "fetched")


def test_one_file_is_fetched_alone_or_read(store: Store, tmp_path: Path) -> None:
    artifact = open_artifact(store, seal(store, {"a.txt": b"A", "sub/b.txt": b"B"}).ref)

    artifact.fetch(tmp_path / "fetched", ["sub/b.txt"])

    assert _tree(tmp_path / "fetched") == {"sub/b.txt": b"B"}
    assert artifact.read("a.txt") == b"A"
    with pytest.raises(NotFound, match=r"c\.txt"):
        artifact.read("c.txt")
    with pytest.raises(NotFound, match=r"c\.txt"):
        artifact.fetch(tmp_path, ["c.txt"])


def test_the_manifest_keeps_what_the_work_was(store: Store) -> None:
    data = ArtifactRef(kind=ArtifactKind.LABELS, fingerprint="b" * 64, digest="c" * 64)
    model = ExternalModel(uri="hf://owner/name", revision="0123")
    writer = ArtifactWriter(store, ArtifactKind.POLICY, FINGERPRINT)
    sealed = writer.seal(
        stage=StageName.TRAIN,
        inputs=[data, model],
        config={"stage": "train", "loss": {"beta": 0.1}},
        iterate=2,
        model=ModelLineage(base="hf://owner/base"),
        metrics={Metric.TRAIN_LOSS: MetricValue(value=0.5, lower=0.4)},
        counts={"kept": 3},
        libraries={"torch": "2.13.0"},
    )

    manifest = open_artifact(store, sealed.ref).manifest

    assert manifest == sealed.manifest
    assert manifest.inputs == [data, model]
    assert manifest.metrics[Metric.TRAIN_LOSS].lower == 0.4


def test_equal_work_has_an_equal_digest_whoever_did_it(store: Store, tmp_path: Path) -> None:
    first = seal(store, {"b.txt": b"B", "a.txt": b"A"})
    (tmp_path / "a").write_bytes(b"A")
    writer = ArtifactWriter(store, KIND, "b" * 64)
    writer.add_file(tmp_path / "a", "a.txt")
    writer.add_bytes(b"B", "b.txt")
    second = writer.seal(stage=StageName.SAMPLE, rows=2)

    assert second.manifest.model_copy(update={"fingerprint": FINGERPRINT}).to_bytes() == first.manifest.to_bytes()


def test_two_files_of_one_name_are_refused(store: Store) -> None:
    writer = ArtifactWriter(store, KIND, FINGERPRINT)
    writer.add_bytes(b"A", "a.txt")

    with pytest.raises(ValueError, match=r"a\.txt"):
        writer.add_bytes(b"B", "a.txt")


def test_of_two_attempts_that_seal_at_once_one_wins_and_both_report_it(store: Store, tmp_path: Path) -> None:
    """They did the same work and got other bytes, as sampling does: neither may write over the other's files."""
    together = threading.Barrier(4)

    def attempt(number: int) -> tuple[bool, ArtifactRef]:
        writer = ArtifactWriter(store, KIND, FINGERPRINT)
        for name in ("a.txt", "b.txt"):
            writer.add_bytes(f"{name} of attempt {number}".encode(), name)
        together.wait()
        sealed = writer.seal(stage=StageName.SAMPLE, rows=number)
        return sealed.created, sealed.ref

    with ThreadPoolExecutor(max_workers=4) as pool:
        results = list(pool.map(attempt, range(4)))

    winners = [number for number, (created, _) in enumerate(results) if created]
    assert len(winners) == 1
    assert len({ref.digest for _, ref in results}) == 1
    folder = open_artifact(store, results[0][1]).fetch(tmp_path / "fetched")
    assert _tree(folder) == {name: f"{name} of attempt {winners[0]}".encode() for name in ("a.txt", "b.txt")}


def test_what_a_late_attempt_uploads_does_not_touch_a_sealed_artifact(store: Store, tmp_path: Path) -> None:
    first = seal(store, {"a.txt": b"first"})

    second = seal(store, {"a.txt": b"second"})

    assert not second.created
    assert second.ref == first.ref
    assert (open_artifact(store, first.ref).fetch(tmp_path / "fetched") / "a.txt").read_bytes() == b"first"


def test_a_manifest_with_another_digest_is_corrupted(store: Store) -> None:
    sealed = seal(store, {"a.txt": b"A"})
    other = sealed.ref.model_copy(update={"digest": "0" * 64})

    with pytest.raises(Corrupted, match=f"expected a manifest with SHA-256 {'0' * 64}, found {sealed.ref.digest}"):
        open_artifact(store, other)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (b"", "cannot be read"),
        (b'{"kind":"samples"', "cannot be read"),
        (b"[]", "cannot be read"),
        ({"formatVersion": 99}, "format 99"),
        ({"fingerprint": "b" * 64}, f"is of samples/{'b' * 64}"),
        ({"files": [{"path": "../../etc/passwd", "key": "k", "size": 1, "sha256": "0" * 64}]}, r"files\.0\.path"),
    ],
    ids=["empty", "cut off", "other JSON", "newer format", "of another artifact", "leaves its folder"],
)
def test_a_damaged_manifest_is_corrupted_and_not_absent(store: Store, damage: bytes | dict[str, object], problem: str) -> None:
    sealed = seal(store, {"a.txt": b"A"})
    data = damage if isinstance(damage, bytes) else json.dumps(sealed.manifest.to_wire() | damage).encode()
    store.put(manifest_key(KIND, FINGERPRINT), data)

    with pytest.raises(Corrupted, match=problem) as caught:
        find_artifact(store, KIND, FINGERPRINT)
    assert caught.value.url == f"{artifact_url(store, KIND, FINGERPRINT)}/manifest.json"


@pytest.mark.parametrize(
    "damage", [b"content of a.tx?", b"content", b"content of a.txt and more"], ids=["changed", "truncated", "longer"]
)
def test_a_damaged_file_is_never_handed_out(store: Store, tmp_path: Path, damage: bytes) -> None:
    good = b"content of a.txt"
    artifact = open_artifact(store, seal(store, {"a.txt": good}).ref)
    entry = artifact.manifest.files[0]
    store.put(f"{KIND}/{FINGERPRINT}/{entry.key}", damage)

    with pytest.raises(Corrupted) as caught:
        artifact.fetch(tmp_path / "fetched")

    assert _tree(tmp_path / "fetched") == {}
    assert entry.key in caught.value.url
    assert f"expected {len(good)} bytes with SHA-256 {hashlib.sha256(good).hexdigest()}" in str(caught.value)
    assert f"found {len(damage)} bytes with {hashlib.sha256(damage).hexdigest()}" in str(caught.value)
    with pytest.raises(Corrupted):
        artifact.read("a.txt")


def test_a_missing_file_names_itself(store: Store, tmp_path: Path) -> None:
    artifact = open_artifact(store, seal(store, {"a.txt": b"A"}).ref)
    store.delete([f"{KIND}/{FINGERPRINT}/{artifact.manifest.files[0].key}"])

    said = (
        rf"a\.txt: this file of the sealed artifact {KIND}/{FINGERPRINT} is gone\. Remove the folder {artifact.url} from the store"
    )
    for read in (lambda: artifact.fetch(tmp_path / "fetched"), lambda: artifact.read("a.txt")):
        with pytest.raises(Incomplete, match=said):
            read()


def test_several_missing_files_are_counted(store: Store, tmp_path: Path) -> None:
    artifact = open_artifact(store, seal(store, dict.fromkeys(("a.txt", "b.txt", "c.txt", "d.txt"), b"")).ref)
    store.delete([f"{KIND}/{FINGERPRINT}/{entry.key}" for entry in artifact.manifest.files[1:]])

    with pytest.raises(Incomplete, match=r"b\.txt: this file of the sealed artifact .* is gone, and so are 2 others\."):
        artifact.fetch(tmp_path / "fetched")


def test_a_file_that_is_removed_on_purpose_while_it_is_read_is_not_said_to_be_lost(store: Store) -> None:
    """Whoever comes again goes without it."""
    artifact = open_artifact(store, seal(store, {"a.txt": b"A"}).ref)
    remove_files(artifact, ["a.txt"])

    with pytest.raises(NotFound, match=r"a\.txt") as raised:
        artifact.read("a.txt")
    assert not raised.value.configuration


def test_what_is_fetched_already_is_kept_and_what_was_damaged_is_fetched_again(store: Store, tmp_path: Path) -> None:
    artifact = open_artifact(store, seal(store, {"a.txt": b"A", "b.txt": b"B"}).ref)
    folder = artifact.cached(tmp_path / "scratch")
    kept = (folder / "a.txt").stat().st_ino
    (folder / "b.txt").unlink()
    (folder / "b.txt").write_bytes(b"X")

    assert artifact.cached(tmp_path / "scratch") == folder
    assert (folder / "a.txt").stat().st_ino == kept
    assert (folder / "b.txt").read_bytes() == b"B"


def test_many_may_fetch_into_one_folder(store: Store, tmp_path: Path) -> None:
    files = {f"{number}.txt": bytes([number]) * 100_000 for number in range(6)}
    artifact = open_artifact(store, seal(store, files).ref)

    with ThreadPoolExecutor(max_workers=4) as pool:
        folders = list(pool.map(lambda _: artifact.cached(tmp_path / "scratch"), range(4)))

    assert len(set(folders)) == 1
    assert _tree(folders[0]) == files


def test_a_store_holds_nothing_but_the_artifact(store: Store) -> None:
    sealed = seal(store, {"a.txt": b"A", "b.txt": b"B"})

    entries = [f"{KIND}/{FINGERPRINT}/{entry.key}" for entry in sealed.manifest.files]
    assert keys(store) == sorted([*entries, manifest_key(KIND, FINGERPRINT)])


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
