"""The acceptance tests that the specification numbers: each has tests that carry its number in their names."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def numbered():
    """The numbers in names and ids of tests, each with the files that hold them."""
    found = {}
    for path in sorted(TESTS.glob("test_*.py")):
        if path.name == Path(__file__).name:
            continue
        for number in re.findall(r"\bdef test_spec_(\d+)_|\bid=\"spec-(\d+)", path.read_text(encoding="utf-8")):
            found.setdefault(int(number[0] or number[1]), set()).add(path.name)
    return found


@pytest.mark.parametrize("number", range(1, 20))
def test_item_has_tests(number):
    assert numbered().get(number), f"no test is called test_spec_{number}_..."


def test_no_other_number_is_used():
    assert set(numbered()) == set(range(1, 20))
