"""The revision of a rule: it changes with the code that scores, and with nothing else."""

from __future__ import annotations

import py_compile
import sys
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from rlhf_trainer.labelers.rule import RuleLabeler

SCORE = "def score(messages, response):\n    return 1.0\n"


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of the same second and length would not be seen: to Python itself, a compiled file is known by these two."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def revision(*path: Path, rule: str = "grades:score") -> str:
    """As a new process finds it, with these places before all others."""
    loaded = set(sys.modules)
    sys.path[:0] = map(str, path)
    try:
        found = RuleLabeler.load(rule).revision
    finally:
        del sys.path[: len(path)]
        for name in set(sys.modules) - loaded:
            del sys.modules[name]
    assert found is not None
    return found


#: A package whose entry point reaches its modules by every kind of import, and modules beside it.
PACKAGE = {
    "marks/__init__.py": "",
    "marks/grades.py": "import marks.units as units\nfrom . import scale\nfrom .parts import words\nfrom beside import more\n\n\n"
    "def score(messages, response):\n    from .late import value\n\n    return value\n",
    "marks/units.py": "",
    "marks/scale.py": "",
    "marks/parts/__init__.py": "",
    "marks/parts/words.py": "from ..deep import inner\n",
    "marks/deep/inner.py": "",
    "marks/late.py": "value = 1.0\n",
    "marks/unused.py": "",
    "beside.py": "more = 1\n",
    "unused.py": "",
}


def test_it_is_the_same_wherever_the_code_lies(tmp_path: Path) -> None:
    here, there = written(tmp_path / "here", PACKAGE), written(tmp_path / "there", PACKAGE)
    found = revision(here, rule="marks.grades:score")
    assert len(found) == 40
    assert revision(there, rule="marks.grades:score") == found


@pytest.mark.parametrize("file", [name for name in PACKAGE if "unused" not in name])
def test_an_edit_of_what_the_rule_imports_of_its_own_changes_it(tmp_path: Path, file: str) -> None:
    before = revision(written(tmp_path, PACKAGE), rule="marks.grades:score")
    written(tmp_path, {file: PACKAGE[file] + "# edited\n"})
    assert revision(tmp_path, rule="marks.grades:score") != before


@pytest.mark.parametrize("file", [name for name in PACKAGE if "unused" in name])
def test_an_edit_of_what_it_does_not_import_leaves_it(tmp_path: Path, file: str) -> None:
    before = revision(written(tmp_path, PACKAGE), rule="marks.grades:score")
    written(tmp_path, {file: "edited = True\n"})
    assert revision(tmp_path, rule="marks.grades:score") == before


def test_an_installed_neighbour_is_no_part_of_it(tmp_path: Path) -> None:
    installed = written(tmp_path / "site-packages", {"grades.py": f"import third\n\n\n{SCORE}", "third.py": ""})
    before = revision(installed)
    written(installed, {"third.py": "edited = True\n"})
    assert revision(installed) == before
    written(installed, {"grades.py": f"import third\n\n\n{SCORE}# edited\n"})
    assert revision(installed) != before


def test_where_the_entry_point_only_passes_on_the_code_behind_it_counts(tmp_path: Path) -> None:
    """A module here, and the function in a package that is installed or checked out elsewhere."""
    front, behind = tmp_path / "front", tmp_path / "behind"
    written(front, {"grades.py": "from behind.scores import score\n"})
    written(
        behind,
        {"behind/__init__.py": "", "behind/scores.py": f"from .table import row\n\n\n{SCORE}", "behind/table.py": "row = 1\n"},
    )
    before = revision(front, behind)
    written(behind, {"behind/table.py": "row = 2\n"})
    assert revision(front, behind) != before


def test_a_module_without_source_counts_by_its_bytes(tmp_path: Path) -> None:
    def compiled(value: float) -> str:
        source = tmp_path / "sources" / "grades.py"
        written(source.parent, {source.name: SCORE.replace("1.0", str(value))})
        py_compile.compile(str(source), cfile=str(tmp_path / "grades.pyc"), doraise=True)
        return revision(tmp_path)

    assert compiled(2.0) != compiled(3.0)


def test_a_c_extension_counts_by_its_bytes(tmp_path: Path) -> None:
    late = "def score(messages, response):\n    import fast\n\n    return fast.score(response)\n"
    extension = f"fast{EXTENSION_SUFFIXES[0]}"
    before = revision(written(tmp_path, {"grades.py": late, extension: "built"}))
    assert revision(written(tmp_path, {extension: "built again"})) != before


def test_an_archive_is_read_like_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "rules.zip", "w") as archive:
        archive.writestr("grades.py", SCORE)
    assert revision(tmp_path / "rules.zip") == revision(written(tmp_path / "folder", {"grades.py": SCORE}))


def test_what_cannot_be_parsed_or_found_is_left_to_whoever_imports_it(tmp_path: Path) -> None:
    late = "def score(messages, response):\n    import broken, nowhere\n    from .... import above\n\n    return 1.0\n"
    before = revision(written(tmp_path, {"grades.py": late, "broken.py": "def\n"}))
    written(tmp_path, {"broken.py": "def \n"})
    assert revision(tmp_path) != before


def test_a_rule_of_ours_has_none() -> None:
    """It is versioned by the format of the stages; test_rule.py keeps what it answers."""
    assert RuleLabeler.load("rlhf_trainer.quickstart.task:grade").revision is None
