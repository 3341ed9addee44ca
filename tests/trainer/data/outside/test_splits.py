"""Which files are a split: all of them, none of another, and never those of two folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_trainer.data.outside.splits import split_files
from rlhf_trainer.runtime.errors import ConfigurationProblem


def found(root: Path, *names: str, split: str = "train") -> list[str]:
    files = [root / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return [str(file.relative_to(root)) for file in split_files(root, sorted(files), "file:///d", split)]


def test_a_split_is_a_files_name_its_beginning_or_a_folder(tmp_path: Path) -> None:
    assert found(tmp_path / "a", "train.parquet", "test.parquet") == ["train.parquet"]
    both = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet")
    assert found(tmp_path / "b", *both, "test-00000-of-00001.parquet") == list(both)
    assert found(tmp_path / "c", "train/x.jsonl", "train/y.jsonl", "test/x.jsonl") == ["train/x.jsonl", "train/y.jsonl"]
    assert found(tmp_path / "d", "data/train-a.jsonl", "data/test-a.jsonl") == ["data/train-a.jsonl"]
    assert found(tmp_path / "e", "whatever.jsonl") == ["whatever.jsonl"]


def test_defect_one_of_two_shards_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match=r"of the 3 files train-…-of-00003 number 00001 is missing and 1 more"):
        found(tmp_path / "a", "train-00000-of-00003.parquet")
    with pytest.raises(ConfigurationProblem, match="number 00001 is missing"):
        found(tmp_path / "b", "train-00000-of-00002-6f3344faa23e9b0a.parquet")


def test_defect_a_file_of_another_split_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match=r"has no split train.*there are test"):
        found(tmp_path / "a", "test.jsonl")
    with pytest.raises(ConfigurationProblem, match=r"has no split train"):
        found(tmp_path / "b", "validation-00000-of-00001.parquet")
    with pytest.raises(ConfigurationProblem, match=r"has no split train"):
        found(tmp_path / "d", "test_sft-00000-of-00001.parquet")
    with pytest.raises(ConfigurationProblem, match=r"has no split dev"):
        found(tmp_path / "c", "train.jsonl", "test.jsonl", split="dev")


def test_defect_a_split_of_two_folders_is_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match=r"split train in several folders \(de, en\)\. Name one of them"):
        found(tmp_path, "de/train.jsonl", "en/train.jsonl")
