"""`python tests/image build`: the image for CPUs, from the Dockerfile, on a machine without a container engine or a registry.

build          makes it, and prints its name; what has not changed since the last time is not made again
sizes          its layers, the largest folders in them, and what each is
save FILE      a docker archive, which `ctr images import`, `docker load` and `kind load image-archive` read
remove         everything that was kept for the next build
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from image import builder, sizes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python tests/image", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build")
    commands.add_parser("sizes")
    commands.add_parser("save").add_argument("file", type=Path)
    commands.add_parser("remove")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "build":
                with builder.built() as tag:
                    print(tag)
            case "sizes":
                with builder.built() as tag:
                    print(sizes.table(tag))
            case "save":
                with builder.built() as tag:
                    builder.save(tag, options.file)
            case "remove":
                builder.remove()
    except builder.ImageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
