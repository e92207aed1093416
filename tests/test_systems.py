"""The systems of the course texts: the table in examples/README.md says where each is shown."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples"
COUNTS = {"A": 13, "B": 18, "C": 10, "D": 6, "E": 11}  # the systems of each text


class Row(NamedTuple):
    id: str
    marks: set[str]
    system: str
    tests: list[Path]
    scripts: list[Path]


def targets(cell: str) -> list[Path]:
    """The files that a cell of the table links to."""
    return [(FOLDER / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", cell)]


def rows() -> list[Row]:
    lines = re.findall(r"^\| ([A-E]\d+ \|.*) \|$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [
        Row(name, set(marks.split()), system, targets(tests), targets(scripts))
        for name, marks, system, tests, scripts in cells
    ]


TABLE = rows()
every = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)


def test_every_system_has_its_row() -> None:
    ids = [f"{text}{i}" for text, count in COUNTS.items() for i in range(1, count + 1)]
    assert [row.id for row in TABLE] == ids


def ids_of_tests(path: Path) -> set[str]:
    """The ids in the names of a file's tests: of `test_A8_D6_shifts` they are A8 and D6."""
    names = re.findall(r"^def test((?:_[A-E]\d+)+)_", path.read_text(), re.MULTILINE)
    return {name for group in names for name in group.split("_") if name}


def ids_of_script(path: Path) -> set[str]:
    systems = re.search(r"^Systems +(.+)$", path.read_text(), re.MULTILINE)
    return set(systems[1].split()) if systems else set()


@every
def test_the_row_is_true(row: Row) -> None:
    assert row.system
    assert row.marks
    assert row.marks <= {"T", "X"}
    assert bool(row.tests) == ("T" in row.marks)
    assert bool(row.scripts) == ("X" in row.marks)
    for path in row.tests:
        assert row.id in ids_of_tests(path), path
    for path in row.scripts:
        assert row.id in ids_of_script(path), path


def test_no_other_id_is_used() -> None:
    known = {row.id for row in TABLE}
    tests = [ids_of_tests(path) for path in (ROOT / "tests").rglob("test_*.py")]
    scripts = [ids_of_script(path) for path in FOLDER.glob("*.py")]
    assert set().union(*tests, *scripts) <= known
