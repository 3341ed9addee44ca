"""`python tests/cluster up|down|status`, from any folder."""

from __future__ import annotations

import sys
from pathlib import Path

# As pytest has it (pythonpath in pyproject.toml): `cluster` and `support` are packages of tests/.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from cluster.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
