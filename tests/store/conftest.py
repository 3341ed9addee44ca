"""Everything about stores is promised for file:// and for s3://, so it is tested on both."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_api.resource.storage import Storage
from rlhf_store import Store, open_store


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "s3":
        s3_storage: Storage = request.getfixturevalue("s3_storage")
        return s3_storage
    return Storage(url=f"file://{tmp_path}/store")


@pytest.fixture
def store(storage: Storage) -> Store:
    return open_store(storage, retry_seconds=5)
