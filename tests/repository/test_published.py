"""What others publish is fetched once, by its hash; where it cannot be had that is a sentence, or said to be left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from support import ahead, published
from support.documents import ROOT
from support.published import DASHSCOPE, LLAMA_MODELS, FetchError

VERSION = re.search(rf"^{DASHSCOPE}==(\S+)", published.LOCK.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no index; what pip finds lies in this folder."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_where_there_is_no_index_it_says_what_it_wanted_and_how_to_do_without(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        FetchError,
        match=rf"^{LLAMA_MODELS} \S+, which tests read files of, could not be fetched from the package index: Could not ",
    ) as raised:
        published.folder(LLAMA_MODELS)
    assert str(raised.value).endswith("RLHF_SKIP_REAL=1 leaves the tests marked `real` out.")
    assert ahead.main(["real"]) == 1
    assert capsys.readouterr().err == f"{raised.value}\n"


def test_what_has_another_hash_is_not_taken(nowhere: Path) -> None:
    assert VERSION is not None
    information = f"{DASHSCOPE}-{VERSION[1]}.dist-info"
    with ZipFile(nowhere / f"{DASHSCOPE}-{VERSION[1]}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {DASHSCOPE}\nVersion: {VERSION[1]}\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")
    with pytest.raises(FetchError, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        published.folder(DASHSCOPE)
    assert not published.place(DASHSCOPE).exists()


def test_what_is_there_is_not_fetched_again(nowhere: Path) -> None:
    published.place(DASHSCOPE).mkdir(parents=True)
    assert published.folder(DASHSCOPE) == published.place(DASHSCOPE)


def test_whoever_leaves_them_out_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "test_real.py"
    file.write_text("import pytest\n\n@pytest.mark.real\ndef test_it():\n    assert False\n")
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "support.leaving_out", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(file)],
        cwd=ROOT / "tests",
        env={**os.environ, "RLHF_SKIP_REAL": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr
    assert "RLHF_SKIP_REAL=1: the tests marked `real` were left out" in done.stdout
