"""A run in a folder pays for no S3, and the store never brings the training stack."""

from __future__ import annotations

import subprocess
import sys


def test_a_local_store_imports_neither_boto3_nor_torch() -> None:
    code = (
        "import sys; from rlhf_api.resource.storage import Storage; from rlhf_store import open_store; "
        "open_store(Storage(url='file:///tmp/folder')).head('key'); "
        "print([name for name in ('boto3', 'botocore', 's3transfer', 'torch') if name in sys.modules])"
    )

    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
