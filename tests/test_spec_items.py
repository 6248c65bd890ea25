"""The acceptance tests that the specification numbers: each has tests that carry its number in their names."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Without code to test yet: 16, the mask of a ranking task's scores, whose tasks (other items than those of the
# histories) do not exist here.
ABSENT = {16}


def numbered():
    """The numbers in names and ids of tests, each with the files that hold them."""
    found = {}
    for path in sorted(TESTS.glob("test_*.py")):
        if path.name == Path(__file__).name:
            continue
        for number in re.findall(r"\bdef test_spec_(\d+)_|\bid=\"spec-(\d+)", path.read_text(encoding="utf-8")):
            found.setdefault(int(number[0] or number[1]), set()).add(path.name)
    return found


@pytest.mark.parametrize("number", [number for number in range(1, 20) if number not in ABSENT])
def test_item_has_tests(number):
    assert numbered().get(number), f"no test is called test_spec_{number}_..."


def test_no_other_number_is_used():
    assert set(numbered()) == set(range(1, 20)) - ABSENT
