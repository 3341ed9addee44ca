"""Are the locks resolved from the pyproject.toml that is here? `make lock` writes the digest of what they were made from.

python tools/lock_inputs.py --write   after resolving
python tools/lock_inputs.py           exit 1 where pyproject.toml asks for something else now; needs no index
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write locks/inputs.sha256")
    write = parser.parse_args().write
    file = ROOT / "locks" / "inputs.sha256"
    digest = inputs_digest((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if write:
        file.write_text(digest + "\n", encoding="utf-8")
        return 0
    if file.exists() and file.read_text(encoding="utf-8").strip() == digest:
        return 0
    sys.stderr.write("pyproject.toml asks for other packages than the locks were resolved from; run: make lock\n")
    return 1


def inputs_digest(pyproject: str) -> str:
    """SHA-256 of everything in pyproject.toml that a resolution depends on."""
    content = tomllib.loads(pyproject)
    project = content["project"]
    inputs = {
        "requires-python": project["requires-python"],
        "dependencies": project["dependencies"],
        "extras": project["optional-dependencies"],
        "groups": content.get("dependency-groups", {}),
        "uv": content.get("tool", {}).get("uv", {}),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
