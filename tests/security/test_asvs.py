"""The table of the OWASP ASVS is whole, and each test that it names is there to be run."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.security.asvs import LEVELS, ROWS, Row

TESTS = Path(__file__).resolve().parents[1]
REQUIRED = {number: level for of in LEVELS.values() for level, numbers in of.items() for number in numbers.split()}


@cache
def collected(path: Path) -> frozenset[str]:
    """The tests of a file that pytest collects and does not skip."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            marks = [ast.unparse(each) for each in node.decorator_list]
            if not any(mark.startswith(("pytest.mark.skip(", "pytest.mark.xfail")) for mark in marks):
                found.add(node.name)
    return frozenset(found)


def test_each_requirement_has_its_row() -> None:
    numbers = [row.id for row in ROWS]
    assert len(numbers) == len(set(numbers))
    assert {row.id: row.level for row in ROWS if row.id in REQUIRED} == REQUIRED
    assert len(REQUIRED) > 150


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_is_proven_or_says_why_not(row: Row) -> None:
    assert row.asks and row.level in (1, 2, 3)
    assert bool(row.tests) == (row.standing == "held")
    assert row.standing == "held" or len(row.why) > 10
    for test in row.tests:
        file, _, name = test.partition("::")
        path = TESTS / f"{file}.py"
        assert path.exists(), f"{row.id}: {path}"
        assert name in collected(path), f"{row.id}: there is no {test}"


def test_what_is_open_is_little_and_known() -> None:
    """Another row that is not held is a decision, to be taken where people see it: here."""
    assert {row.id for row in ROWS if row.standing == "open"} == {"6.1.2", "6.2.11", "6.3.3", "7.3.2", "12.3.1"}
