"""What only a folder can suffer: a full disk, a read-only place, a writer that was killed in the middle of a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rlhf_api.resource.storage import Storage
from rlhf_store import NotFound, NotWritable, Store, find_artifact, open_artifact, open_store
from support.artifacts import FINGERPRINT, KIND, keys, seal
from support.waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Store:
    return open_store(Storage(url=f"file://{folder}"))


def test_an_object_is_a_file_that_a_person_can_open(store: Store, folder: Path) -> None:
    store.put("folder/object.txt", b"content")

    assert (folder / "folder" / "object.txt").read_bytes() == b"content"


def test_the_last_object_of_a_folder_takes_the_folder_with_it(store: Store, folder: Path) -> None:
    store.put("folder/deep/object", b"")

    store.delete(["folder/deep/object"])

    assert not (folder / "folder").exists()


@pytest.mark.parametrize("name", ["with space", "run #3", "why?now", "50%", "100%25", "a%20b", "ü;x=1&y"])
def test_every_letter_of_a_folders_name_is_itself(tmp_path: Path, name: str) -> None:
    store = open_store(Storage(url=f"file://{tmp_path / name}/store"))

    store.put("object", b"content")

    assert (tmp_path / name / "store" / "object").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert store.get("object") == b"content"


def test_a_url_with_a_host_is_refused() -> None:
    with pytest.raises(ValueError, match="file:///folder"):
        open_store(Storage(url="file://host/folder"))


@pytest.mark.parametrize("place", ["/sys/rlhf-store", "/proc/rlhf-store"])
def test_a_place_where_nobody_can_write_is_not_writable(place: str) -> None:
    with pytest.raises(NotWritable, match=place) as caught:
        open_store(Storage(url=f"file://{place}")).check_writable()
    assert caught.value.configuration


def test_a_file_where_the_folder_should_be_is_named(folder: Path, store: Store) -> None:
    folder.write_text("not a folder")

    with pytest.raises(NotWritable, match="a file is in the way"):
        store.check_writable()
    with pytest.raises(NotFound):
        store.get("object")


@pytest.mark.parametrize("write", ["store.put('object', bytes(4 << 20))", "store.upload(source, 'object')"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, folder: Path, store: Store, write: str) -> None:
    """A limit on the size of files is the disk that is full after 1 MiB: the same write() fails."""
    (tmp_path / "source").write_bytes(bytes(4 << 20))

    done = _python(
        f"""
        import resource
        from rlhf_store import DiskFull
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        source = Path({str(tmp_path / "source")!r})
        try:
            {write}
        except DiskFull as error:
            print(error)
        """,
        folder,
    )

    output, _ = done.communicate(timeout=60)
    assert f"file://{folder}/object: no room to write" in output
    assert "Free space" in output
    assert keys(store) == []
    assert list((folder / ".incoming").iterdir()) == []


@pytest.mark.s3
def test_a_full_scratch_disk_is_named_by_a_download(tmp_path: Path, s3_storage: Storage) -> None:
    open_store(s3_storage).put("object", bytes(4 << 20))

    done = _python(
        f"""
        import resource
        from rlhf_store import DiskFull
        store = open_store(Storage.model_validate_json({s3_storage.model_dump_json()!r}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            store.download("object", Path({str(tmp_path)!r}, "target"))
        except DiskFull as error:
            print(error)
        """,
        tmp_path / "unused",
    )

    output, _ = done.communicate(timeout=60)
    assert f"{tmp_path}/target: no room to write" in output
    assert list(tmp_path.iterdir()) == []


def test_a_writer_killed_in_the_middle_of_a_file_leaves_no_object(tmp_path: Path, folder: Path, store: Store) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = _python(f"store.upload(Path({str(pipe)!r}), 'folder/object')", folder)
    with pipe.open("wb") as source:
        source.write(bytes(1 << 20))
        source.flush()
        wait_until(lambda: [path for path in (folder / ".incoming").glob("*") if path.stat().st_size], "some bytes of the file")
        writer.send_signal(signal.SIGKILL)
        writer.communicate()

        assert keys(store) == []
        assert store.head("folder/object") is None


def test_what_a_killed_writer_left_is_removed_when_it_is_old(folder: Path, store: Store) -> None:
    store.put("object", b"")
    old, new = folder / ".incoming" / "old", folder / ".incoming" / "new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))

    store.check_writable()

    assert not old.exists()
    assert new.exists(), "it may be another's who writes now"


def test_a_writer_killed_before_the_manifest_leaves_nothing_to_find(tmp_path: Path, folder: Path, store: Store) -> None:
    writer = _python(
        f"""
        import sys
        from rlhf_api.words import ArtifactKind, StageName
        from rlhf_store import ArtifactWriter
        from rlhf_store.backends.files import FileStore

        class StopsBeforeManifest(FileStore):
            def put(self, key, data, *, if_absent=False):
                if key.endswith("manifest.json"):
                    print("all but the manifest", flush=True)
                    sys.stdin.read()
                super().put(key, data, if_absent=if_absent)

        writer = ArtifactWriter(StopsBeforeManifest(store.url), ArtifactKind.SAMPLES, {FINGERPRINT!r})
        for number in range(4):
            writer.add_bytes(bytes(number), str(number))
        writer.seal(stage=StageName.SAMPLE)
        """,
        folder,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "all but the manifest\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()

    assert len(keys(store)) == 4
    assert find_artifact(store, KIND, FINGERPRINT) is None
    sealed = seal(store, {"a.txt": b"of the next attempt"})
    assert sealed.created
    assert (open_artifact(store, sealed.ref).fetch(tmp_path / "fetched") / "a.txt").read_bytes() == b"of the next attempt"


def test_changing_what_was_downloaded_by_replacing_it_does_not_change_the_store(store: Store, tmp_path: Path) -> None:
    """Downloads share their bytes with the store where they can; tools that write aside and rename are safe."""
    store.put("object", b"content")
    target = tmp_path / "target"
    store.download("object", target)

    aside = tmp_path / "aside"
    aside.write_bytes(b"changed")
    aside.replace(target)

    assert store.get("object") == b"content"
    assert target.read_bytes() == b"changed"


def _python(script: str, folder: Path) -> subprocess.Popen[str]:
    """A process with `store` open on `folder`."""
    head = f"""
        from pathlib import Path
        from rlhf_api.resource.storage import Storage
        from rlhf_store import open_store
        store = open_store(Storage(url={f"file://{folder}"!r}))
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
