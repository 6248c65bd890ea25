"""Times as in the file: integers of any size and floats, compared without rounding."""

import math
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError

Times = npt.NDArray[np.int64] | npt.NDArray[np.float64]
ExactTimes = Times | list[int | float]
_EXACT = 1 << 53  # up to here every integer is a float64


class NotATimeError(ValueError):
    """A cell that is not a number in the range of float64; ``place`` is its index."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


def parse_times(cells: Sequence[str]) -> ExactTimes:
    """Read numbers without rounding them.

    Args:
        cells: (N,) decimal numbers.

    Returns:
        (N,): int64 if all are 64-bit integers; float64 if that represents all exactly; otherwise a list of Python
        integers of any size and floats.

    Raises:
        NotATimeError: a cell that is not a number in the range of float64.
    """
    try:
        if "_" not in "".join(cells):  # Python allows _ in numbers, files do not
            return np.array(array("q", map(int, cells)), dtype=np.int64)
    except (ValueError, OverflowError):
        pass
    numbers: list[int | float] = [_number(cell, place) for place, cell in enumerate(cells)]
    if all(isinstance(number, float) or abs(number) <= _EXACT for number in numbers):
        return np.array(numbers, dtype=np.float64)
    return numbers


def _number(cell: str, place: int) -> int | float:
    try:
        if "_" in cell:
            raise NotATimeError(place)
        try:
            number: int | float = int(cell)
        except ValueError:
            number = float(cell)
        if math.isfinite(number):  # NaN would sort anywhere
            return number
    except (ValueError, OverflowError):
        pass
    raise NotATimeError(place)


def join_times(parts: Sequence[ExactTimes]) -> ExactTimes:
    """Concatenate parts from :func:`parse_times`, in one of its forms, still without rounding."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        if all(part.dtype == np.int64 for part in arrays):
            return np.concatenate([np.zeros(0, dtype=np.int64), *arrays])
        if all(part.dtype == np.float64 or are_floats(part) for part in arrays):
            return np.concatenate([part.astype(np.float64) for part in arrays])
    return [number for part in parts for number in (part if isinstance(part, list) else part.tolist())]


def are_floats(integers: npt.NDArray[Any]) -> bool:
    """Tell whether float64 represents these integers and all between them."""
    return bool(integers.min(initial=0) >= -_EXACT and integers.max(initial=0) <= _EXACT)


def sortable(times: ExactTimes) -> Times:
    """Convert times to an array with the same order.

    Returns:
        (N,) int64 or float64: smaller times are smaller, equal times are equal. If neither type represents all times,
        two different times with the same float64 are separated by moving one to the next float64.

    Raises:
        InputError: too many times at the end of the range of float64 to separate them.
    """
    if isinstance(times, np.ndarray):
        return times
    # Python compares integers of any size and floats exactly.
    value: dict[int | float, float] = {}
    before = -math.inf
    for number in sorted(set(times)):
        before = max(float(number), math.nextafter(before, math.inf))
        if math.isinf(before):
            raise InputError(f"times: expected numbers in the range of a float64, got {str(number)[:40]}")
        value[number] = before
    return np.array([value[number] for number in times], dtype=np.float64)


def as_text(times: ExactTimes) -> npt.NDArray[Any]:
    """Return an array for a file: the times themselves, or, for a list, their text, which :func:`from_text` reads."""
    return times if isinstance(times, np.ndarray) else np.array([str(number) for number in times], dtype=np.str_)


def from_text(times: npt.NDArray[Any]) -> ExactTimes:
    """Read the result of :func:`as_text`."""
    return [_number(cell, place) for place, cell in enumerate(times.tolist())] if times.dtype.kind == "U" else times
