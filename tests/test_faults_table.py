"""docs/faults.md promises nothing that is not tested: every row names tests, and they are there."""

import ast
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

TABLE = REPOSITORY / "docs" / "faults.md"
LEAST_ROWS = 28
NAMED = re.compile(r"`(tests/[a-z0-9_]+\.py)::(test_[a-z0-9_]+)`")


def rows() -> list[list[str]]:
    """The cells of every row."""
    lines = [line for line in TABLE.read_text(encoding="utf8").splitlines() if re.match(r"\| \d+ \|", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def defined_in(path: Path) -> set[str]:
    """Names of the test functions that a file defines."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    return {f.name for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_table_has_a_row_for_every_fault_numbered_in_order() -> None:
    numbers = [int(row[0]) for row in rows()]
    assert len(numbers) >= LEAST_ROWS
    assert numbers == list(range(1, len(numbers) + 1))
    assert {len(row) for row in rows()} == {5}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_row_names_tests_that_exist(row: list[str]) -> None:
    assert row[1]
    assert row[2]
    named = NAMED.findall(row[4])
    assert named, f"row {row[0]} ({row[1]}) names no test"
    assert NAMED.sub("", row[4]).strip() == "", "nothing but tests, written tests/<file>.py::<name>"
    for file, name in named:
        assert (REPOSITORY / file).is_file(), f"row {row[0]}: {file} is not there"
        assert name in defined_in(REPOSITORY / file), f"row {row[0]}: {file} has no {name}"


def test_every_test_of_a_fault_is_in_the_table() -> None:
    named = {name for row in rows() for _, name in NAMED.findall(row[4])}
    own = {p for p in (REPOSITORY / "tests").glob("test_faults_*.py") if p != Path(__file__)}
    lost = {name for path in own for name in defined_in(path) if name.startswith("test_")} - named
    assert not lost, f"injected, and missing in {TABLE.name}: {sorted(lost)}"


def expected_to_fail(path: Path) -> set[str]:
    """Names of the tests of a file that bear an xfail mark."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    functions = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
    return {f.name for f in functions if any("xfail" in ast.unparse(d) for d in f.decorator_list)}


def test_what_is_not_kept_yet_is_said_and_nothing_else() -> None:
    said = set(re.findall(r"^- `(test_\w+)`:", TABLE.read_text(encoding="utf8"), re.MULTILINE))
    known = {name for path in (REPOSITORY / "tests").glob("test_faults_*.py") for name in expected_to_fail(path)}
    assert said == known
