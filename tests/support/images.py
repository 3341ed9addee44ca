"""Container images from static programs, made without a container engine: one layer, in a docker archive."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

#: Mount points, and a place for temporary files that everybody may write to where the root file system can be written.
_FOLDERS = {"dev": 0o755, "etc": 0o755, "proc": 0o755, "sys": 0o755, "tmp": 0o1777}


def write(archive: Path, name: str, program: Path, *arguments: str, files: Mapping[str, Path] | None = None) -> None:
    """An image of this name that starts `program` with `arguments`. `files`: absolute path in the image → file here.

    The program lies in the image's root as `/main`. Equal inputs give an equal archive.
    """
    layer = _layer({"/main": program, **(files or {})})
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/main"], "Cmd": list(arguments), "Env": ["PATH=/"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{digest}/layer.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]).encode()
    with tarfile.open(archive, "w") as tar:
        for file, content in ((config_name, config), (layer_name, layer), ("manifest.json", manifest)):
            _add(tar, file, content)


def _layer(files: Mapping[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder, mode in _FOLDERS.items():
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, mode
            tar.addfile(member)
        for path, file in files.items():
            _add(tar, path.lstrip("/"), file.read_bytes(), 0o755 if _is_program(file) else 0o644)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def _is_program(file: Path) -> bool:
    return bool(file.stat().st_mode & 0o111)
