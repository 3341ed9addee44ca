"""Files from outside: what is read, and what is said of those that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.data import PromptSource
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.storage import Storage
from rlhf_store import open_store
from rlhf_trainer.data.layouts import questions_of
from rlhf_trainer.data.rows import FileRow, Row, Unparsable
from rlhf_trainer.data.sources import fetch_model, open_rows, resolve_revision
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.hub import COMMIT, hub_with
from support.s3 import S3Server

STORAGE = Storage(url="file:///nowhere")


def rows_of(path: Path, split: str = "train") -> list[Row | Unparsable]:
    return list(open_rows(PromptSource(uri=f"file://{path}", split=split), Path("/nowhere"), STORAGE))


def read(path: Path, split: str = "train") -> list[object]:
    return [row.words if isinstance(row, Unparsable) else row["n"] for row in rows_of(path, split)]


def test_parquet_and_json_lines_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "train-a.jsonl").write_text('{"n": 1}\n\n{"n": 2}\n')
    pq.write_table(pa.table({"n": [3, 4]}), tmp_path / "train-b.parquet")
    (tmp_path / ".cache").write_text("not data")
    (tmp_path / "README.md").write_text("not data either")
    assert read(tmp_path) == [1, 2, 3, 4]


def places(rows: Sequence[Row | Unparsable]) -> list[tuple[str, int]]:
    return [(row.file, row.number) if isinstance(row, FileRow | Unparsable) else ("", 0) for row in rows]


def test_a_row_knows_its_file_and_where_it_stands_there(tmp_path: Path) -> None:
    (tmp_path / "train-a.jsonl").write_text('{"n": 1}\n\n{"n": \n{"n": 2}\n')
    pq.write_table(pa.table({"n": [3, 4]}), tmp_path / "train-b.parquet")
    assert places(rows_of(tmp_path)) == [
        ("train-a.jsonl", 1), ("train-a.jsonl", 3), ("train-a.jsonl", 4), ("train-b.parquet", 1), ("train-b.parquet", 2),
    ]  # fmt: skip


def test_a_row_of_a_hub_knows_its_parquet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    (tmp_path / "set" / "data").mkdir(parents=True)
    for number in (0, 1):
        table = pa.table({"n": [2 * number, 2 * number + 1]})
        pq.write_table(table, tmp_path / "set" / "data" / f"train-0000{number}-of-00002.parquet")
    with hub_with(tmp_path / "set") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        rows = list(open_rows(PromptSource(uri="hf://owner/name", revision=COMMIT), tmp_path, STORAGE))
    assert rows == [{"n": number} for number in range(4)]
    assert places(rows) == [(f"train-0000{file}-of-00002.parquet", row) for file in (0, 1) for row in (1, 2)]


def test_a_configuration_of_a_hub_data_set_is_chosen_by_name_and_never_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """openai/gsm8k has main and socratic: the same questions, and other answers."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folders = []
    for number, name in enumerate(("main", "socratic")):
        folder = tmp_path / "set" / name
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"n": [number]}), folder / "train-00000-of-00001.parquet")
        folders.append(f"- config_name: {name}\n  data_files: [{{split: train, path: {name}/train-*}}]\n")
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n{''.join(folders)}---\n")
    with hub_with(tmp_path / "set") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        source = PromptSource(uri="hf://owner/name", revision=COMMIT)
        for number, name in enumerate(("main", "socratic")):
            rows = list(open_rows(source.model_copy(update={"config": name}), tmp_path, STORAGE))
            assert rows == [{"n": number}]
            assert places(rows) == [("train-00000-of-00001.parquet", 1)]
        with pytest.raises(ConfigurationProblem, match=r"has several configurations: main, socratic\. Set config"):
            open_rows(source, tmp_path, STORAGE)
        with pytest.raises(ConfigurationProblem, match=r"'other' not found\. Available: .*main.*socratic"):
            open_rows(source.model_copy(update={"config": "other"}), tmp_path, STORAGE)


@pytest.mark.parametrize(("file", "text"), [("train.jsonl", '{"n": 1}\n{"n": \n'), ("README.md", "nothing")])
def test_a_data_set_of_a_hub_that_cannot_be_read_is_a_problem_of_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / file).write_text(text)
    with hub_with(tmp_path / "set") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(ConfigurationProblem, match=r"hf://owner/name .split train. cannot be read: ."):
            open_rows(PromptSource(uri="hf://owner/name", revision=COMMIT), tmp_path, STORAGE)


def test_text_of_parquet_that_is_no_utf_8_is_a_problem_of_the_file(tmp_path: Path) -> None:
    column = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"], pa.binary()).buffers())
    pq.write_table(pa.table({"n": column}), tmp_path / "train.parquet")
    with pytest.raises(ConfigurationProblem, match=r"train\.parquet is no readable Parquet file"):
        list(rows_of(tmp_path))


def test_a_date_that_python_cannot_have_is_a_problem_of_the_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1], "day": pa.array([10**7], pa.int32()).cast(pa.date32())}), tmp_path / "train.parquet")
    with pytest.raises(ConfigurationProblem, match=r"train\.parquet is no readable Parquet file"):
        list(rows_of(tmp_path))


@pytest.mark.parametrize("name", ["run #3", "why?now", "50%25 of it"])
def test_every_letter_of_a_path_is_itself(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "p.jsonl").write_text('{"n": 1}\n')
    (folder / "config.json").write_text("{}")
    assert read(folder / "p.jsonl") == [1]
    assert fetch_model(ModelRef(uri=f"file://{folder}"), tmp_path, STORAGE) == folder
    assert len(resolve_revision(PromptSource(uri=f"file://{folder}"), STORAGE)) == 40


def test_a_split_is_the_files_of_its_name(tmp_path: Path) -> None:
    for name, number in (("train-0", 1), ("train-1", 2), ("test", 3)):
        pq.write_table(pa.table({"n": [number]}), tmp_path / f"{name}.parquet")
    assert read(tmp_path) == [1, 2]
    assert read(tmp_path, "test") == [3]


def test_a_split_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    """All files together would train on the test data."""
    for name in ("train-0", "train-1", "test"):
        pq.write_table(pa.table({"n": [1]}), tmp_path / f"{name}.parquet")
    with pytest.raises(ConfigurationProblem, match=r"has no split validation: .* there are test, train-0, train-1\.$"):
        read(tmp_path, "validation")


def test_a_folder_with_one_data_file_needs_no_split(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / "prompts.jsonl").write_text('{"n": 1}\n')
    assert read(tmp_path) == [1]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.jsonl", b'{"n": 1}\n{"n": \n', "line 2 of p.jsonl is no JSON"),
        ("p.jsonl", b'{"n": 1}\n\xff\xfe\n', "line 2 of p.jsonl is no JSON.*UTF-8"),
        ("p.jsonl", b"[1, 2]\n", "line 1 of p.jsonl is no object"),
        ("p.jsonl", b"\n \n", "has no rows"),
        ("p.parquet", b"PAR1 but not really", "p.parquet is no readable Parquet file"),
        ("p.csv", b"n\n1\n", "holds no .parquet, .jsonl, .json file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_place(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationProblem, match=said):
        require_rows(PromptSource(uri=f"file://{tmp_path / name}", column="n"))


def require_rows(source: PromptSource) -> None:
    rows = list(open_rows(source, Path("/nowhere"), STORAGE))
    questions_of(source, rows, "prompts.source").read(rows)[1].require_usable()


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": list(range(1000))}), tmp_path / "p.parquet")
    whole = (tmp_path / "p.parquet").read_bytes()
    (tmp_path / "p.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigurationProblem, match="no readable Parquet file"):
        read(tmp_path / "p.parquet")


def test_a_place_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match="gone does not exist or is empty"):
        read(tmp_path / "gone")
    with pytest.raises(ConfigurationProblem, match="is no model"):
        fetch_model(ModelRef(uri=f"file://{tmp_path}/gone"), tmp_path, STORAGE)


@pytest.mark.s3
def test_a_folder_made_in_a_console_is_no_file(s3_server: S3Server, s3_storage: Storage, tmp_path: Path) -> None:
    store = open_store(s3_storage)
    for made in ("data", "data/more", "model"):
        s3_server.create_folder(f"{s3_storage.url}/{made}")
    store.put("data/train.jsonl", b'{"n": 1}\n')
    store.put("model/config.json", b"{}")
    assert list(open_rows(PromptSource(uri=f"{s3_storage.url}/data/"), tmp_path, s3_storage)) == [{"n": 1}]
    folder = fetch_model(ModelRef(uri=f"{s3_storage.url}/model"), tmp_path, s3_storage)
    assert [path.name for path in folder.iterdir()] == ["config.json"]


@pytest.mark.s3
@pytest.mark.parametrize("trusted", [False, True])
def test_of_a_model_in_a_bucket_only_what_is_read_is_fetched(s3_storage: Storage, tmp_path: Path, trusted: bool) -> None:
    store = open_store(s3_storage)
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "global_step8/optim_states.pt", "modeling_own.py"):
        store.put(f"model/{name}", b"{}")
    model = ModelRef(uri=f"{s3_storage.url}/model", trust_remote_code=trusted)
    found = sorted(path.name for path in fetch_model(model, tmp_path, s3_storage).rglob("*") if path.is_file())
    assert found == ["config.json", "model.safetensors", *(["modeling_own.py"] if trusted else [])]
    revision = resolve_revision(model, s3_storage)
    store.put("model/global_step8/optim_states.pt", b"others")
    assert resolve_revision(model, s3_storage) == revision


@pytest.mark.parametrize("scheme", ["file", pytest.param("s3", marks=pytest.mark.s3)])
def test_files_that_changed_since_they_were_resolved_are_refused(
    scheme: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A run's shards and iterations would learn from different data under one fingerprint."""
    storage: Storage = request.getfixturevalue("s3_storage") if scheme == "s3" else Storage(url=f"file://{tmp_path}/outside")
    store = open_store(storage)

    def write(number: int) -> None:
        store.put("data/train.jsonl", json.dumps({"n": number}).encode() + b"\n")
        store.put("model/config.json", json.dumps({"n": number}).encode())

    write(1)
    data, model = PromptSource(uri=f"{storage.url}/data"), ModelRef(uri=f"{storage.url}/model")
    pinned_data = data.model_copy(update={"revision": resolve_revision(data, storage)})
    pinned_model = model.model_copy(update={"revision": resolve_revision(model, storage)})
    for stage in ("one", "one", "two"):
        assert list(open_rows(pinned_data, tmp_path / stage, storage)) == [{"n": 1}]
        assert (fetch_model(pinned_model, tmp_path / stage, storage) / "config.json").read_text() == '{"n": 1}'
    write(2)
    assert list(open_rows(data, tmp_path / "three", storage)) == [{"n": 2}]
    again: list[tuple[Callable[[], object], str]] = [
        (lambda: list(open_rows(pinned_data, tmp_path / "four", storage)), data.uri),
        (lambda: fetch_model(pinned_model, tmp_path / "four", storage), model.uri),
    ]
    for read_again, uri in again:
        with pytest.raises(ConfigurationProblem, match=f"{uri} has other files than when this run began"):
            read_again()


def test_the_revision_of_files_is_their_content(tmp_path: Path) -> None:
    def revision(folder: Path) -> str:
        return resolve_revision(PromptSource(uri=f"file://{folder}"), STORAGE)

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "p.jsonl").write_text('{"n": 1}\n')
    assert revision(tmp_path / "a") == revision(tmp_path / "b")
    (tmp_path / "b" / "p.jsonl").write_text('{"n": 2}\n')
    assert revision(tmp_path / "a") != revision(tmp_path / "b")
    (tmp_path / "a" / "p.jsonl").rename(tmp_path / "a" / "q.jsonl")
    assert len({revision(tmp_path / "a"), revision(tmp_path / "b")}) == 2


@pytest.mark.parametrize("text", ['[\n  {"n": 1},\n  {"n": 2}\n]\n', '[{"n": 1}, {"n": 2}]\n'])
def test_a_file_that_is_one_json_array_is_told_how_to_write_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.json").write_text(text)
    first = rows_of(tmp_path)[0]
    assert isinstance(first, Unparsable)
    assert "jq -c '.[]' train.json" in first.words


def test_an_object_with_a_key_twice_is_named_and_no_row(tmp_path: Path) -> None:
    """Readers differ in which of the two they take."""
    (tmp_path / "train.jsonl").write_text('{"n": 1}\n{"n": 2, "m": {"k": 3, "k": 4}}\n')
    assert read(tmp_path) == [1, "line 2 of train.jsonl: an object has the key 'k' twice; keep one of them"]


def test_a_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"]), tmp_path / "train.parquet")
    with pytest.raises(ConfigurationProblem, match=r"train\.parquet has several columns 'n', .* Write it with one of each name"):
        read(tmp_path)
