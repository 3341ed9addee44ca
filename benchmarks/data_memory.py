"""How much memory do many pairs take? `python benchmarks/data_memory.py`

Pairs are written to one Parquet file of one row group, few and many of them, under Mistral's own vocabulary of 131,072 tokens
(mistral_common). Each file is prepared by a process of its own and those that it forks, and their memory is looked at every 50 ms:
proportional set size, so that what is shared counts once; of mapped files nothing counts, for the kernel may take it back. Then the
file of the many is read in whole by processes, as ranks read it, and once more into a Python list, which is the yardstick.

Prints the peaks in MB, rows a second, and bytes a token for the readers. With 700,000 pairs it takes ten minutes to three quarters
of an hour on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_api.resource.data import DataSource
from rlhf_api.resource.storage import Storage
from rlhf_api.words import StageName
from rlhf_trainer.data.examples import Examples
from rlhf_trainer.data.sources import open_rows
from rlhf_trainer.runtime.progress import Progress
from rlhf_trainer.training.prepared.prepare import Preprocessor
from rlhf_trainer.training.prepared.recipe import Recipe, whole
from support.tekken import tekken
from support.vocabularies import vocabulary

SCHEMA = pa.schema([(name, pa.string()) for name in ("prompt", "chosen", "rejected")])
STORAGE = Storage(url="file:///nowhere")
_MB = 2**20


def write_pairs(file: Path, pairs: int, words: int) -> None:
    chance = random.Random(0)
    known = [f"{chance.choice('bcdfgklmnprst')}{chance.choice('aeiou')}{number}" for number in range(5000)]
    with pq.ParquetWriter(file, SCHEMA) as writer:
        columns = [[" ".join(chance.choices(known, k=words)) for _ in range(pairs)] for _ in SCHEMA.names]
        writer.write_table(pa.table(columns, schema=SCHEMA), row_group_size=pairs)


def prepare(source: Path, file: Path, processes: int) -> None:
    data = DataSource(name="pairs", uri=f"file://{source}")
    recipe = Recipe(StageName.REWARD, [data], None, whole(4096), 0)
    rows = open_rows(data, source.parent, STORAGE)
    Preprocessor(recipe, vocabulary(tekken()), None).prepare([(data, rows)], file, Progress(None), processes=processes)


def read_mapped(file: Path, ready: Any, go_on: Any) -> None:
    found = Examples(file)
    found.most_tokens, found[0]
    ready.put(own_memory(os.getpid()))
    go_on.wait()
    for example in found:
        if not example.completions:
            raise AssertionError("a pair without answers")
    ready.put(own_memory(os.getpid()))


def read_into_a_list(file: Path, ready: Any, go_on: Any) -> None:
    found = Examples(file)
    ready.put(own_memory(os.getpid()))
    go_on.wait()
    held = list(found)
    ready.put(own_memory(os.getpid()))
    del held


def own_memory(pid: int) -> int:
    """Bytes of a process, shared ones in proportion, without mapped files."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))


def family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(grandchild for child in children for grandchild in family(int(child)))]


def peak_of(work: Callable[[], None]) -> tuple[int, float]:
    """Bytes at the peak, and seconds."""
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    began, peak = time.perf_counter(), 0
    while process.is_alive():
        peak = max(peak, sum(map(own_memory, family(process.pid or 0))))
        process.join(0.05)
    if process.exitcode:
        raise SystemExit(process.exitcode)
    return peak, time.perf_counter() - began


def growth_of(read: Callable[..., None], file: Path, readers: int) -> int:
    """Bytes that all readers hold more once they have read all of it."""
    context = multiprocessing.get_context("spawn")
    ready, go_on = context.Queue(), context.Event()
    processes = [context.Process(target=read, args=(file, ready, go_on)) for _ in range(readers)]
    for process in processes:
        process.start()
    before = sum(ready.get() for _ in processes)
    go_on.set()
    after = sum(ready.get() for _ in processes)
    for process in processes:
        process.join()
    return int(after - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=700)
    parser.add_argument("--many", type=int, default=700_000)
    parser.add_argument("--words", type=int, default=20, help="of a prompt, and of each answer")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--readers", type=int, default=8)
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        source, file = Path(folder) / "pairs.parquet", Path(folder) / "examples.arrow"
        for pairs in (options.few, options.many):
            write_pairs(source, pairs, options.words)
            peak, seconds = peak_of(partial(prepare, source, file, options.processes))
            peaks.append(peak)
            print(f"prepare {pairs:7d} pairs: peak {peak / _MB:.0f} MB, {pairs / seconds:.0f} rows/s", flush=True)
        print(f"growth {(peaks[1] - peaks[0]) / _MB:.0f} MB", flush=True)
        tokens = sum(example.tokens for example in Examples(file))
        mapped = file.stat().st_size + growth_of(read_mapped, file, options.readers)
        held = growth_of(read_into_a_list, file, 1)
        print(f"{tokens} tokens: {mapped / tokens:.2f} bytes a token for {options.readers} readers in all, the file with it;")
        print(f"{held / tokens:.1f} for one that holds a list of them")


if __name__ == "__main__":
    main()
