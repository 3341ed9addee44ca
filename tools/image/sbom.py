"""What is in the image, as CycloneDX: the Python packages that cyclonedx-py found, and Debian's. `sbom.py PYTHON.json OUT.json`

Runs in the image's build, with nothing but the standard library.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote


def main() -> int:
    python, out = map(Path, sys.argv[1:])
    bill = json.loads(python.read_text())
    bill.setdefault("components", []).extend(debian_components(_dpkg()))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(bill, sort_keys=True, separators=(",", ":")))
    return 0


def debian_components(listed: str) -> list[dict[str, Any]]:
    """`listed`: a line a package: name, version, architecture."""
    found = []
    for line in sorted(listed.splitlines()):
        name, version, architecture = line.split("\t")
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={architecture}"
        found.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    return found


def _dpkg() -> str:
    format_ = "${Package}\t${Version}\t${Architecture}\n"
    return subprocess.run(
        ["/usr/bin/dpkg-query", "--show", f"--showformat={format_}"], check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
