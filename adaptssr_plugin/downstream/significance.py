"""Means over seeds, and tests of their differences."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from adaptssr_plugin.errors import InputError, check_count, check_kind


class Summary(NamedTuple):
    """Mean and standard deviation (ddof 1; NaN for a single value) of ``n`` values."""

    mean: float
    std: float
    n: int


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def summarise(values: Sequence[float] | np.ndarray) -> Summary:
    """Summarise one value per seed."""
    array = _values("values", values, at_least=1)
    std = float(array.std(ddof=1)) if len(array) > 1 else math.nan
    return Summary(float(array.mean()), std, len(array))


def welch(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Two-sided p-value of Welch's t-test: are the means of two independent samples the same?

    Samples without any spread give 1 if their means are equal and 0 otherwise.

    Raises:
        InputError: fewer than two values in a sample, or one that is not finite.
    """
    from scipy.stats import ttest_ind_from_stats

    a, b = _values("a", a, at_least=2), _values("b", b, at_least=2)
    first, second = ((sample.mean(), _deviation(sample), len(sample)) for sample in (a, b))
    if first[1] == second[1] == 0:
        return float(first[0] == second[0])
    # From means and deviations: from the values, scipy warns where one sample has no spread.
    return float(ttest_ind_from_stats(*first, *second, equal_var=False).pvalue)


def paired(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, overlap: float = 0.0) -> float:
    """Two-sided p-value of the paired t-test; ``a[i]`` and ``b[i]`` share their seed, or their split.

    Random splits of the same users overlap, so their differences are not independent. The corrected resampled t-test
    (Nadeau and Bengio, 2003, "Inference for the generalization error", Machine Learning 52) allows for it:
    ``t = mean / sqrt((1/n + n_test/n_train) var)`` with n - 1 degrees of freedom.

    Differences without any spread give 1 if they are zero and 0 otherwise.

    Args:
        a: ``(n,)`` values.
        b: ``(n,)`` values.
        overlap: ``n_test / n_train`` if i counts random splits, :data:`SPLIT_OVERLAP` for 6:2:2; 0 for seeds.

    Raises:
        InputError: fewer than two pairs, samples of different sizes, or a value that is not finite.
    """
    from scipy.stats import t

    mean, error, n = _mean_and_error(a, b, overlap)
    return float(2 * t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)


def paired_interval(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, level: float = 0.95, overlap: float = 0.0
) -> Interval:
    """Mean of ``a[i] - b[i]`` with its t confidence interval; ``overlap`` and errors as :func:`paired`."""
    from scipy.stats import t

    mean, error, n = _mean_and_error(a, b, overlap)
    half = float(t.ppf((1 + level) / 2, n - 1)) * error
    return Interval(mean, mean - half, mean + half)


def shown_decimals(means: Iterable[float]) -> int:
    """Return the number of decimals for a column of means, fractions in [0, 1], printed as percentages.

    Two, as in the paper; more if every mean is below 1 %, so that the largest shows three significant digits.
    """
    largest = max((100 * mean for mean in means if not math.isnan(mean)), default=0.0)
    return 2 if largest <= 0 else min(6, max(2, 2 - math.floor(math.log10(largest))))


def shown(summary: Summary, decimals: int = 2, width: int = 1) -> str:
    """``mean±std`` in percent, only the mean if there is no spread; ``width``: pad the mean to this width."""
    mean = f"{100 * summary.mean:{width}.{decimals}f}"
    return mean if math.isnan(summary.std) else f"{mean}±{100 * summary.std:.{decimals}f}"


def relative_improvement(mean: float, mean_none: float, decimals: int = 2) -> float:
    """The column Impr: ``100 (m / m_None - 1)`` of the means as printed, which gives the column of the paper's Table 2.

    Both are fractions in [0, 1] and are first rounded to ``decimals`` of a percent, as in the table, so that a reader
    can check the column against its neighbours. NaN if None prints as 0.00.

    Example:
        >>> round(relative_improvement(0.5441, 0.5353), 2)
        1.64
    """
    for name, value in (("mean", mean), ("mean_none", mean_none)):
        check_kind(name, value, (int, float, np.number), "a number")
    shown, shown_none = (float(f"{100 * value:.{decimals}f}") for value in (mean, mean_none))
    return 100 * (shown / shown_none - 1) if shown_none else math.nan


def accuracy_standard_error(value: float, n_rows: int) -> float:
    """Standard error of an accuracy measured on ``n_rows`` users, ``sqrt(p (1 - p) / n)`` (binomial)."""
    _check_share("value", value)
    check_count("n_rows", n_rows)
    return math.sqrt(value * (1 - value) / n_rows)


def auc_standard_error(value: float, n_positive: int, n_negative: int) -> float:
    """Standard error of an AUC measured on the given numbers of users of both classes (Hanley and McNeil 1982).

    ``sqrt([A(1-A) + (n₊-1)(Q₁-A²) + (n₋-1)(Q₂-A²)] / (n₊n₋))`` with ``Q₁ = A/(2-A)``, ``Q₂ = 2A²/(1+A)``.
    """
    _check_share("value", value)
    for name, count in (("n_positive", n_positive), ("n_negative", n_negative)):
        check_kind(name, count, (int, np.integer), "an integer")
    if n_positive < 1 or n_negative < 1:
        raise InputError(f"n_positive, n_negative: expected both positive, got {n_positive} and {n_negative}")
    square = value**2
    q1, q2 = value / (2 - value), 2 * square / (1 + value)
    variance = value * (1 - value) + (n_positive - 1) * (q1 - square) + (n_negative - 1) * (q2 - square)
    return math.sqrt(max(variance, 0.0) / (n_positive * n_negative))


def _check_share(name: str, value: float) -> None:
    if not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
        raise InputError(f"{name}: expected a fraction in [0, 1], got {value}")


def _values(name: str, values: Sequence[float] | np.ndarray, at_least: int) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: expected numbers, got {values!r}") from None
    if array.ndim != 1 or len(array) < at_least:
        raise InputError(f"{name}: expected at least {at_least} values, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: expected finite values, got {array.tolist()}")
    return array


def _mean_and_error(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, overlap: float
) -> tuple[float, float, int]:
    """Mean of the differences, its standard error, and their number."""
    a, b = _values("a", a, at_least=2), _values("b", b, at_least=2)
    if len(a) != len(b):
        raise InputError(f"b: expected {len(a)} values, one for each of a, got {len(b)}")
    differences: np.ndarray = a - b
    # The rest of 0.3 - 0.1 - 0.2 is rounding, not a difference.
    differences[np.abs(differences) < 1e-12 * np.maximum(np.abs(a), np.abs(b))] = 0
    n = len(differences)
    return float(differences.mean()), _deviation(differences) * math.sqrt(1 / n + overlap), n


def _deviation(values: np.ndarray) -> float:
    """Standard deviation (ddof 1); a deviation within rounding counts as 0."""
    std = float(values.std(ddof=1))
    return std if std > 1e-12 * float(np.abs(values).max()) else 0.0
