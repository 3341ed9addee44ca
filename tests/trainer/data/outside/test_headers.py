"""A weights file by its header alone says what the whole one says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlhf_trainer.data.outside.headers import LONGEST_HEADER, Part, ReadPart, write_headers
from rlhf_trainer.models.stored import stored_shapes
from rlhf_trainer.runtime.errors import ConfigurationProblem


def reader(data: bytes) -> ReadPart:
    return lambda start, length: Part(data[start : start + length], len(data))


def test_names_shapes_and_size_are_there_and_no_tensor_is_asked_for_or_kept(tmp_path: Path) -> None:
    whole, headers = tmp_path / "whole", tmp_path / "headers"
    whole.mkdir()
    save_file({"a.weight": torch.zeros(1024, 1024), "b": torch.zeros(3)}, whole / "model.safetensors")
    data = (whole / "model.safetensors").read_bytes()
    asked = []

    def read(start: int, length: int) -> Part:
        asked.append(length)
        return reader(data)(start, length)

    write_headers(headers, {"model.safetensors": read}, "hf://owner/name")

    assert stored_shapes(headers, "m") == stored_shapes(whole, "m") == {"a.weight": (1024, 1024), "b": (3,)}
    written = (headers / "model.safetensors").stat()
    assert written.st_size == len(data)
    assert written.st_blocks * 512 <= 8192, "the hole takes no room"
    assert sum(asked) < 1024


def test_one_that_was_cut_off_is_still_known_as_such(tmp_path: Path) -> None:
    """Its end is not where its header says."""
    save_file({"a": torch.zeros(4096)}, tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    write_headers(tmp_path / "headers", {"model.safetensors": reader(data[:-1000])}, "hf://owner/name")
    with pytest.raises(ConfigurationProblem, match=r"model\.safetensors is no safetensors file"):
        stored_shapes(tmp_path / "headers", "m")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "too short for a header, and the file has 0"),
        (b"1234567", "too short for a header, and the file has 7"),
        ((0).to_bytes(8, "little") + b"{}", "would have 0 bytes, and the file has 10"),
        ((3).to_bytes(8, "little") + b"{}", "would have 3 bytes, and the file has 10"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"would have \d{19} bytes, and the file has 43"),
    ],
)
def test_a_length_that_no_header_has_is_refused_and_not_read(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(ConfigurationProblem, match=f"hf://owner/name: model.safetensors is no safetensors file: .*{told}"):
        write_headers(tmp_path, {"model.safetensors": reader(data)}, "hf://owner/name")
    assert list(tmp_path.iterdir()) == []


def test_a_header_larger_than_safetensors_reads_is_refused_however_large_the_file_is(tmp_path: Path) -> None:
    def read(start: int, length: int) -> Part:
        assert start == 0, "nothing but the length is read"
        return Part((LONGEST_HEADER + 1).to_bytes(length, "little"), 1 << 40)

    with pytest.raises(ConfigurationProblem, match="would have 100000001 bytes"):
        write_headers(tmp_path, {"model.safetensors": read}, "hf://owner/name")


def test_one_that_is_replaced_meanwhile_is_told_of(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4096)}, tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()

    def read(start: int, length: int) -> Part:
        return reader(data if start == 0 else data[:64])(start, length)

    with pytest.raises(ConfigurationProblem, match="was replaced while its header was read"):
        write_headers(tmp_path / "headers", {"model.safetensors": read}, "hf://owner/name")
