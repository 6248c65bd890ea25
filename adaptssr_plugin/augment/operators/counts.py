"""The number of items that a ratio of a sequence stands for, without rounding errors."""

from fractions import Fraction
from functools import lru_cache
from numbers import Real

from torch import Tensor

from adaptssr_plugin.errors import InputError

# 0.3 · 100 is 30.000001 in float32, 0.7 · 10 can be less than 7 in float64, and not every device has float64. So a
# ratio becomes a fraction with at most 13 decimals, and all counts use integer arithmetic: 10^13 · n fits into int64
# for every n up to 922,337.
_DECIMALS = 10**13
_SLACK = 10**9  # its reciprocal


def check_ratio(ratio: object) -> float:
    """Return ``ratio`` as a float; raise InputError unless it is a number in (0, 1]."""
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 0 < float(ratio) <= 1:
        raise InputError(f"ratio: expected a number in (0, 1], got {ratio!r}")
    return float(ratio)


def up(ratio: float, n: Tensor) -> Tensor:
    """Return ``ceil(ratio · n - 1e-9)`` for each of ``n`` (int64, any shape), exactly, on its device."""
    numerator, denominator, slack = _exact(ratio)
    return (n * numerator + (denominator - 1 - slack)) // denominator


def dn(ratio: float, n: Tensor) -> Tensor:
    """Return ``floor(ratio · n + 1e-9)`` for each of ``n`` (int64, any shape), exactly, on its device."""
    numerator, denominator, slack = _exact(ratio)
    return (n * numerator + slack) // denominator


def hidden(ratio: float, n: Tensor) -> Tensor:
    """Return how many of ``n`` items are hidden: ``ceil(ratio · n)``, at least 1 and at most n - 1; 0 if n is 1."""
    return up(ratio, n).clamp_(min=1).minimum(n - 1)


@lru_cache
def _exact(ratio: float) -> tuple[int, int, int]:
    """Write a ratio as numerator and denominator, with the slack of 1e-9 in units of 1 / denominator."""
    share = Fraction(round(Fraction(ratio) * _DECIMALS), _DECIMALS)
    return share.numerator, share.denominator, share.denominator // _SLACK
