"""What every store promises, whatever lies behind it."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhf_api.resource.storage import Storage
from rlhf_store import AlreadyExists, NotFound, ObjectInfo, Store, open_store
from support.artifacts import keys

#: Above the multi-part threshold, and not a whole number of parts.
LARGE = 40 * (1 << 20) + 12_345


def test_what_was_put_is_got(store: Store) -> None:
    store.put("folder/object", b"content")

    assert store.get("folder/object") == b"content"
    assert store.head("folder/object") == ObjectInfo("folder/object", 7)


def test_a_second_put_replaces_the_first(store: Store) -> None:
    store.put("object", b"first")
    store.put("object", b"second, and longer")

    assert store.get("object") == b"second, and longer"


@pytest.mark.parametrize(
    ("start", "length", "found"), [(0, 3, b"012"), (3, 4, b"3456"), (8, 5, b"89"), (9, 1, b"9"), (10, 4, b""), (99, 1, b"")]
)
def test_a_range_is_what_lies_there(store: Store, start: int, length: int, found: bytes) -> None:
    store.put("object", b"0123456789")

    assert store.get_range("object", start, length) == found


def test_of_an_empty_object_every_range_is_empty(store: Store) -> None:
    store.put("object", b"")

    assert store.get_range("object", 0, 8) == b""


def test_another_content_of_the_same_size_has_another_checksum(store: Store, tmp_path: Path) -> None:
    store.put("object", b"content")
    first = store.checksum("object")
    store.put("same", b"content")
    (tmp_path / "file").write_bytes(b"another")
    store.upload(tmp_path / "file", "object")

    assert first == store.checksum("same") != store.checksum("object")
    assert first.startswith("sha256:")


def test_a_large_object_has_a_checksum_until_it_is_another(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(random.Random(0).randbytes(LARGE))
    store.upload(source, "large")
    first, again = store.checksum("large"), store.checksum("large")
    source.write_bytes(random.Random(1).randbytes(LARGE))
    store.upload(source, "large")

    assert first == again != store.checksum("large")


def test_an_absent_object_is_not_found_by_any_way_of_reading(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"

    assert store.head("absent") is None
    with pytest.raises(NotFound, match="absent"):
        store.get("absent")
    with pytest.raises(NotFound, match="absent"):
        store.get_range("absent", 0, 1)
    with pytest.raises(NotFound, match="absent"):
        store.checksum("absent")
    with pytest.raises(NotFound, match="absent"):
        store.download("absent", target)
    assert list(tmp_path.glob("*target*")) == []


def test_a_folder_is_no_object(store: Store) -> None:
    store.put("folder/object", b"content")

    assert store.head("folder") is None
    with pytest.raises(NotFound):
        store.get("folder")


def test_a_conditional_put_never_replaces(store: Store) -> None:
    store.put("object", b"first", if_absent=True)

    with pytest.raises(AlreadyExists, match="object"):
        store.put("object", b"second", if_absent=True)
    assert store.get("object") == b"first"


def test_of_many_conditional_puts_at_once_exactly_one_wins(store: Store) -> None:
    def attempt(number: int) -> int | None:
        try:
            store.put("object", str(number).encode(), if_absent=True)
        except AlreadyExists:
            return None
        return number

    with ThreadPoolExecutor(max_workers=16) as pool:
        winners = [number for number in pool.map(attempt, range(16)) if number is not None]

    assert len(winners) == 1
    assert store.get("object") == str(winners[0]).encode()


def test_an_empty_object_is_an_object(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    store.put("put", b"")
    store.upload(tmp_path / "empty", "uploaded")
    store.download("uploaded", tmp_path / "downloaded")

    assert store.get("put") == b""
    assert store.head("uploaded") == ObjectInfo("uploaded", 0)
    assert (tmp_path / "downloaded").read_bytes() == b""


@pytest.mark.parametrize("key", ["ünï/cödé/日本語.json", "with space/and+plus", "100%25/#?&=", "quote'\"\\", "-dash", ".dot/.file"])
def test_a_key_of_any_characters_is_kept_as_it_is(store: Store, tmp_path: Path, key: str) -> None:
    store.put(key, key.encode())
    store.download(key, tmp_path / "target")

    assert store.get(key) == (tmp_path / "target").read_bytes() == key.encode()
    assert keys(store) == [key]
    store.delete([key])
    assert keys(store) == []


@pytest.mark.parametrize("key", ["", "/absolute", "trailing/", "a//b", "a/../../b", ".", "nul\0"])
def test_a_key_that_could_leave_the_store_is_refused(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="no key of a store"):
        store.put(key, b"")


def test_a_large_file_makes_the_round_trip(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(random.Random(0).randbytes(LARGE))

    store.upload(source, "large")
    store.download("large", target)

    assert store.head("large") == ObjectInfo("large", LARGE)
    assert _sha256(target) == _sha256(source)
    assert [path.name for path in target.parent.iterdir()] == ["target"], "nothing of a download is left beside it"


def test_a_download_replaces_what_was_there(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    store.put("object", b"new")

    store.download("object", target)
    store.download("object", target)

    assert target.read_bytes() == b"new"


def test_a_list_holds_the_keys_with_the_prefix_in_order(store: Store) -> None:
    for key in ["b/2", "b/10", "bb", "c/d/e", "é", "a b"]:
        store.put(key, key.encode())

    assert keys(store) == ["a b", "b/10", "b/2", "bb", "c/d/e", "é"]
    assert keys(store, "b") == ["b/10", "b/2", "bb"]
    assert keys(store, "b/") == ["b/10", "b/2"]
    assert list(store.list("c/d/")) == [ObjectInfo("c/d/e", 5)]
    assert keys(store, "absent/") == []


def test_a_list_is_whole_beyond_one_page(store: Store) -> None:
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda number: store.put(f"many/{number:04d}", b""), range(1050)))

    assert keys(store, "many/") == [f"many/{number:04d}" for number in range(1050)]
    store.delete(keys(store, "many/"))
    assert keys(store) == []


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.put("object", b"")

    store.delete(["object", "absent", "absent/too"])
    store.delete([])

    assert keys(store) == []


def test_writing_while_neighbours_are_deleted_loses_nothing(store: Store) -> None:
    """A folder of a local store goes away with its last object, in whatever moment another object comes."""

    def put_and_delete(number: int) -> None:
        store.put(f"folder/deep/{number}", b"")
        store.delete([f"folder/deep/{number}"])

    def put(number: int) -> None:
        store.put(f"folder/deep/kept-{number}", b"")
        store.delete([f"folder/deep/kept-{number}"]) if number % 2 else None

    with ThreadPoolExecutor(max_workers=8) as pool:
        for task in [pool.submit(work, number) for number in range(40) for work in (put_and_delete, put)]:
            task.result()

    assert keys(store) == sorted(f"folder/deep/kept-{number}" for number in range(0, 40, 2))


def test_the_probe_of_a_good_store_leaves_nothing(store: Store) -> None:
    store.check_writable()

    assert keys(store) == []


def test_two_stores_with_one_url_are_one_store(store: Store, storage: Storage) -> None:
    store.put("object", b"content")

    assert open_store(storage).get("object") == b"content"
    assert store.url == storage.url


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
