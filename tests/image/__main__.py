"""`python tests/image build|sizes|save|remove`, from any folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from image.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
