"""`make programs`: what tests need and no package index has, built before the first of them begins. It says what takes how long.

    PYTHONPATH=tests python -m support.ahead test|real|e2e|faults|crash-points

A test that is run by hand makes what it does not find, too (binaries.py, published.py, image/builder.py), but within its own
time limit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.programs import PROGRAMS, WITHOUT_NODE
from image import builder
from support import binaries, published, smollm2
from support.binaries import BuildError, Source

IMAGE = "image"
#: Of a cluster that KUBECONFIG names, the tests run nothing themselves but these.
_BESIDE_A_CLUSTER = ("kubectl", "kwok")
USES = ("test", "real", "e2e", "faults", "crash-points")


class NoRoomError(Exception):
    """Says where, and how much is needed."""


@dataclass(frozen=True)
class Build:
    what: str
    minutes: float
    """On two cores."""
    room: Mapping[Path, float]
    """GB, by the folder that they come into."""
    run: Callable[[], None]
    """Bounded in time by itself. Raises BuildError or ImageError."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m support.ahead", description="Build what tests need, before they begin.")
    parser.add_argument("use", choices=USES, help="which tests: those of `make test`, of `make e2e`, …")
    try:
        build_all(builds(needed(parser.parse_args(arguments).use, os.environ)), _say)
    except (NoRoomError, BuildError, builder.ImageError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"{error.filename or binaries.cache()}: {error.strerror}. Look at its owner and its disk; RLHF_CACHE names another "
            "folder for what is built.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("Stopped. What is built stays, and the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


def needed(use: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Names of programs, of published packages and of the model that is made of one, and IMAGE.

    `make test` starts clusters of its own also where KUBECONFIG names one: some tests are of how a cluster starts.
    """
    node = (*PROGRAMS["node"], "probe", "helm", IMAGE)
    tokenizers = () if environment.get(published.WITHOUT_REAL) == "1" else published.TOKENIZERS
    match use:
        case "faults":
            return ("versitygw",)
        case "crash-points":
            return _BESIDE_A_CLUSTER if environment.get("KUBECONFIG") else PROGRAMS["control"]
        case "e2e":
            return node
        case "real":
            return (*published.GIGABYTES, smollm2.NAME) if tokenizers else ()
        case _:
            left_out = environment.get(WITHOUT_NODE) == "1"
            return (*PROGRAMS["control"], "helm", "versitygw", *(() if left_out else node), *tokenizers)


def builds(names: Sequence[str]) -> list[Build]:
    """What is missing of these, in the order in which it is built. Raises ImageError where the image could not be begun."""
    found = [_fetch_of(package) for package in published.GIGABYTES if package in names and not published.place(package).exists()]
    if smollm2.NAME in names and not smollm2.place().exists():
        found.append(Build(smollm2.NAME, smollm2.MINUTES, {binaries.cache(): smollm2.GIGABYTES}, _build_model))
    found += [_build_of(source, missing) for source in binaries.SOURCES if (missing := binaries.missing(source, names))]
    if IMAGE in names and (work := builder.to_build()):
        found.append(Build("the image", work.minutes, {binaries.cache(): work.gigabytes}, _build_image))
    return found


def build_all(builds: Sequence[Build], say: Callable[[str], None]) -> None:
    """One after the other, each with a line as it begins and one as it ends.

    The first that fails ends it all: what keeps one from being built (no network, no room, no compiler) mostly keeps the others,
    and each would take its time to find out. Nothing is lost: what is built stays, and so does what Go has compiled.
    """
    if not builds:
        say("programs and image: all are built")
        return
    check_room(builds)
    say(f"to build, once: {_rest(builds)}")
    for number, build in enumerate(builds, start=1):
        place = f"[{number}/{len(builds)}] {build.what}"
        say(f"{place}: begins, {_about(build.minutes)}")
        begun = time.monotonic()
        build.run()
        say(f"{place}: built in {time.monotonic() - begun:.0f} s; left: {_rest(builds[number:])}")


def check_room(builds: Sequence[Build]) -> None:
    """NoRoomError, before anything has begun, where a disk is too small for all that comes onto it."""
    needed: dict[int, list[tuple[Path, float, str]]] = defaultdict(list)
    for build in builds:
        for folder, size in build.room.items():
            needed[_existing(folder).stat().st_dev].append((folder, size, build.what))
    short = list(filter(None, map(_shortage, needed.values())))
    if short:
        raise NoRoomError("\n".join(short))


def _shortage(parts: Sequence[tuple[Path, float, str]]) -> str:
    """Of folder, GB and what is built, on one disk; "" where there is room."""
    size = sum(part for _, part, _ in parts)
    folders = sorted({folder for folder, _, _ in parts})
    free = shutil.disk_usage(_existing(folders[0])).free / 1e9
    if free >= size:
        return ""
    return (
        f"{' and '.join(map(str, folders))}: {free:.1f} GB are free there, and it takes {size:.1f} GB to build "
        f"{', '.join(dict.fromkeys(what for _, _, what in parts))}. Free some, or have it on a larger disk: RLHF_CACHE is the "
        "folder of what is built; GOCACHE and GOMODCACHE those of Go."
    )


def _existing(folder: Path) -> Path:
    """It, or the folder in which it will be made."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _build_of(source: Source, missing: Mapping[str, str]) -> Build:
    def run() -> None:
        binaries.build(source, missing)

    return Build(", ".join(missing), source.minutes, binaries.room(source), run)


def _fetch_of(package: str) -> Build:
    def run() -> None:
        published.folder(package)

    return Build(package, published.MINUTES, {binaries.cache(): published.GIGABYTES[package]}, run)


def _build_model() -> None:
    smollm2.folder()


def _build_image() -> None:
    with builder.built():
        pass


def _rest(builds: Sequence[Build]) -> str:
    return f"{len(builds)}, {_about(sum(build.minutes for build in builds))}" if builds else "nothing"


def _about(minutes: float) -> str:
    return f"about {minutes:.0f} min" if minutes >= 1 else "less than a minute"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
