"""Of a weights file its header alone: that says which tensors it holds, of which shapes, and where the file ends.

Eight bytes with a length (little-endian), so many bytes of JSON, the tensors: https://huggingface.co/docs/safetensors/index#format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rlhf_trainer.runtime.errors import ConfigurationProblem

WEIGHTS = "*.safetensors"
#: As safetensors itself has it, in bytes.
LONGEST_HEADER = 100_000_000
_LENGTH = 8
_FILES_AT_A_TIME = 8


@dataclass(frozen=True)
class Part:
    """`data`: what was asked for, less where the file ends before. `size`: of the whole file, bytes."""

    data: bytes
    size: int


#: (start, length) → the part of a file that begins there, both in bytes.
ReadPart = Callable[[int, int], Part]


def write_headers(folder: Path, weights: Mapping[str, ReadPart], model: str) -> None:
    """For each path of `weights` a file in `folder` as large as the whole one, in which there is the header and then a hole.

    Who reads the header, and compares the end that it names with the file's, finds what the whole file would say; the hole takes no
    room on the disk. Raises ConfigurationProblem, with `model` as its name, for a file that cannot have such a header.
    """
    with ThreadPoolExecutor(_FILES_AT_A_TIME, thread_name_prefix="headers") as pool:
        for written in [pool.submit(_write_header, folder / name, read, f"{model}: {name}") for name, read in weights.items()]:
            written.result()


def _write_header(path: Path, read: ReadPart, name: str) -> None:
    start = read(0, _LENGTH)
    length = int.from_bytes(start.data, "little")
    if len(start.data) < _LENGTH or not 0 < length <= min(LONGEST_HEADER, start.size - _LENGTH):
        told = f"its header would have {length} bytes" if len(start.data) == _LENGTH else "it is too short for a header"
        raise ConfigurationProblem(f"{name} is no safetensors file: {told}, and the file has {start.size}. Copy it anew.")
    header = read(_LENGTH, length)
    if len(header.data) != length or header.size != start.size:
        raise ConfigurationProblem(f"{name} was replaced while its header was read. Try again when nobody writes there.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(start.data + header.data)
        file.truncate(start.size)
