"""Times of any size and kind, compared as the numbers that they spell."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptssr_plugin.corpus.formats.times import NotATimeError, as_text, from_text, join_times, parse_times, sortable
from adaptssr_plugin.errors import InputError

NUMBERS = st.one_of(
    st.integers(-5, 5), st.integers(2**53 - 2, 2**53 + 5), st.integers(2**63 - 2, 2**63 + 2), st.integers(),
    st.floats(allow_nan=False, allow_infinity=False), st.floats(2.0**53, 2.0**53 + 8),
)  # fmt: skip


@given(st.lists(st.lists(NUMBERS, max_size=8), max_size=5))
def test_the_order_is_that_of_the_exact_numbers(parts):
    exact = [Fraction(number) for part in parts for number in part]
    parsed = [parse_times([repr(number) for number in part]) for part in parts]
    joined = join_times([from_text(as_text(part)) for part in parsed])
    assert [Fraction(number) for number in (joined if isinstance(joined, list) else joined.tolist())] == exact
    found = sortable(joined)
    assert found.dtype in (np.int64, np.float64)
    assert np.unique(found, return_inverse=True)[1].tolist() == [sorted(set(exact)).index(number) for number in exact]


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [(["1", "-2"], np.int64), (["1700000000000000001"], np.int64), (["1.5", "2"], np.float64), ([], np.int64)],
)
def test_types(cells, dtype):
    found = parse_times(cells)
    assert found.dtype == dtype
    assert found.tolist() == [float(cell) if "." in cell else int(cell) for cell in cells]


ODD = ["", " ", "noon", "nan", "inf", "-inf", "1e999", "1_000", "1,5", "0x10", "NA", str(10**400), "-" + "9" * 5000]


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_time(odd):
    with pytest.raises(NotATimeError) as caught:
        parse_times(["1", "2.5", odd, "3"])
    assert caught.value.place == 2


def test_numbers_at_the_end_of_all_floats():
    largest = int(np.finfo(np.float64).max)
    assert np.argsort(sortable(parse_times([str(largest), "1"]))).tolist() == [1, 0]
    with pytest.raises(InputError, match=r"^times: expected numbers in the range of a float64, got 1797"):
        sortable(parse_times([str(largest), str(largest + 1), "1"]))
