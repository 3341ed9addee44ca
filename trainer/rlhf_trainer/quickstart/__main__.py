"""`python -m rlhf_trainer.quickstart --folder DIR --seed N`: make the quickstart's world; the last line is its manifest's path."""

from __future__ import annotations

import argparse
from pathlib import Path

from .world import MINI, Size, make_world


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rlhf_trainer.quickstart", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where to write model, data and run.yaml")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=["full", "mini"], default="full", help="mini goes through every stage but learns little")
    parser.add_argument("--store", help="storage.url of the manifest; absent: the local backend's own store")
    arguments = parser.parse_args()
    size = MINI if arguments.size == "mini" else Size()
    print(make_world(arguments.folder, arguments.seed, size, arguments.store))


if __name__ == "__main__":
    main()
