"""Means over seeds and the worth of their differences."""

import math

import numpy as np
import pytest
from scipy import stats

from adaptssr_plugin.downstream import paired, relative_improvement, summarise, welch
from adaptssr_plugin.downstream.significance import accuracy_standard_error, auc_standard_error, paired_interval
from adaptssr_plugin.downstream.splits import SPLIT_OVERLAP
from adaptssr_plugin.errors import InputError

A, B = [0.71, 0.74, 0.78, 0.69, 0.75], [0.70, 0.75, 0.73, 0.66, 0.74]


def test_summary_divides_by_one_less():
    mean, std, n = summarise([1.0, 2.0, 4.0])
    assert (mean, std, n) == (pytest.approx(7 / 3), pytest.approx(math.sqrt(7 / 3)), 3)


def test_one_value_has_no_spread():
    one = summarise([0.5])
    assert (one.mean, one.n) == (0.5, 1)
    assert math.isnan(one.std)


def test_p_values_are_those_of_the_formulas():
    def p(difference, error, freedom):
        return 2 * stats.t.sf(abs(difference) / error, freedom)

    def by_welch(a, b):
        first, second = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
        freedom = (first + second) ** 2 / (first**2 / (len(a) - 1) + second**2 / (len(b) - 1))
        return p(np.mean(a) - np.mean(b), math.sqrt(first + second), freedom)

    assert welch(A, B) == pytest.approx(by_welch(A, B), rel=1e-10)
    assert welch(A, B[:3]) == pytest.approx(by_welch(A, B[:3]), rel=1e-10)
    differences = np.subtract(A, B)
    assert paired(A, B) == pytest.approx(p(differences.mean(), differences.std(ddof=1) / math.sqrt(5), 4), rel=1e-10)
    assert welch(A, B) == pytest.approx(stats.ttest_ind(A, B, equal_var=False).pvalue, rel=1e-10)
    assert welch([0.5, 0.5], B) == pytest.approx(stats.ttest_1samp(B, 0.5).pvalue, rel=1e-10)


def test_splits_that_overlap_are_worth_less():
    """Nadeau and Bengio's corrected resampled t-test, 6:2:2: (1/J + n_test/n_train) in place of 1/J."""
    differences = np.subtract(A, B)
    t = differences.mean() / math.sqrt((1 / 5 + 188 / 564) * differences.var(ddof=1))
    corrected = paired(A, B, SPLIT_OVERLAP)
    assert corrected == pytest.approx(2 * stats.t.sf(t, 4), rel=1e-10)
    assert corrected > stats.ttest_rel(A, B).pvalue == pytest.approx(paired(A, B), rel=1e-10)
    edge = paired_interval(A, B, level=1 - corrected, overlap=SPLIT_OVERLAP)
    assert edge.low == pytest.approx(0, abs=1e-12)


def test_interval_is_scipys_and_agrees_with_the_test():
    interval = paired_interval(A, B)
    expected = stats.ttest_rel(A, B).confidence_interval(0.95)
    assert interval == pytest.approx((np.mean(A) - np.mean(B), expected.low, expected.high))
    at_p = paired_interval(A, B, level=1 - paired(A, B))
    assert at_p.low == pytest.approx(0, abs=1e-12)


def test_no_spread_at_all_is_decided_without_a_warning():
    assert welch([0.5, 0.5], [0.5, 0.5, 0.5]) == 1.0
    assert welch([0.6, 0.6], [0.5, 0.5]) == 0.0
    assert paired(A, A) == 1.0
    assert paired([0.3, 0.4], [0.1, 0.2]) == 0.0  # both differ by 0.2, up to rounding
    assert paired_interval(A, A) == (0, 0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: summarise([]), r"values: expected at least 1 values, got shape \(0,\)"),
        (lambda: welch([1.0], [1.0, 2.0]), "a: expected at least 2 values"),
        (lambda: paired([1.0, 2.0], [1.0, 2.0, 3.0]), "b: expected 2 values, one for each of a, got 3"),
        (lambda: paired([1.0, math.nan], [1.0, 2.0]), "a: expected finite values"),
        (lambda: accuracy_standard_error(54.4, 100), r"value: expected a fraction in \[0, 1\], got 54.4"),
        (lambda: accuracy_standard_error(0.5, 0), "n_rows: expected a positive integer, got 0"),
        (lambda: auc_standard_error(0.5, 0, 3), "n_positive, n_negative: expected both positive, got 0 and 3"),
    ],
)
def test_wrong_calls_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("mean", "none", "impr"),
    [
        (0.5441, 0.5353, "1.64"),  # the paper's T2: AdaptSSR against the best baseline (METHODS.md, row 48)
        (0.544149, 0.535251, "1.64"),  # what prints the same gives the same
        (0.50004, 0.49996, "0.00"),
        (0.4, 0.5, "-20.00"),
    ],
)
def test_improvement_is_that_of_the_printed_means(mean, none, impr):
    assert f"{relative_improvement(mean, none):.2f}" == impr


def test_improvement_over_nothing_is_not_a_number():
    assert math.isnan(relative_improvement(0.5, 0.00004))


def test_standard_error_of_an_accuracy():
    assert accuracy_standard_error(0.2, 100) == pytest.approx(0.04)


def test_standard_error_of_an_auc_at_its_ends_and_in_the_middle():
    assert auc_standard_error(1.0, 20, 30) == 0
    # Without signal it is the error of the Mann-Whitney statistic.
    assert auc_standard_error(0.5, 20, 30) == pytest.approx(math.sqrt((20 + 30 + 1) / (12 * 20 * 30)), rel=1e-12)


def test_standard_error_of_an_auc_is_that_of_exponential_scores():
    # Hanley and McNeil's Q₁ and Q₂ are exact there. Uneven classes show which count goes with which.
    rng = np.random.default_rng(0)
    rate, n_positive, n_negative = 0.25, 60, 12  # P(positive > negative) = 1 / (1 + rate)
    positive, negative = rng.exponential(1 / rate, (4000, n_positive, 1)), rng.exponential(1, (4000, 1, n_negative))
    measured = (positive > negative).mean(axis=(1, 2))
    assert measured.mean() == pytest.approx(0.8, abs=0.005)
    assert auc_standard_error(0.8, n_positive, n_negative) == pytest.approx(measured.std(), rel=0.03)
    assert abs(auc_standard_error(0.8, n_negative, n_positive) / measured.std() - 1) > 0.1
