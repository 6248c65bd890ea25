"""The conclusions that a table allows, given its standard deviation over seeds and the size of its test set."""

import math
from collections.abc import Iterable, Mapping, Sequence

from ..downstream.significance import Interval, accuracy_standard_error, auc_standard_error, paired_interval
from ..downstream.splits import SPLIT_OVERLAP
from ..errors import InputError
from .records import Record, paper_name
from .tables import RESAMPLED, Column, Values, paired_values, values_by_run


def seed_uncertainty(
    records: Iterable[Record],
    test_counts: Mapping[str, Sequence[int]],
    baseline: str = "None",
    method: str = "AdaptSSR",
    varied: str = "initialisation, dropout and the order of batches",
    fixed: str = "the split of the users and the pre-trained model",
) -> list[str]:
    """Say for each task what ``method`` gained over ``baseline``, and what that shows.

    Two errors are kept apart. The seeds give a 95 % t interval of the differences paired by seed. The test users are a
    sample too: each value has the binomial standard error (accuracy) or Hanley and McNeil's (AUC). Both methods predict
    for the same users, so the error of their difference is at most the root of the sum of the two squares, unless
    their errors are negatively correlated. A difference within 1.96 times that bound and the interval's half width,
    added in squares, is not called a gain for other users.

    Over several splits, each with other test users, there is one interval: of the differences paired by split, means
    over seeds, corrected for the overlap of splits (:func:`~adaptssr_plugin.downstream.paired_interval`).

    Args:
        records: results on one corpus; only the test values count.
        test_counts: for each task, the number of test users of each class (``np.bincount`` of the labels).
        baseline: the row to compare with.
        method: the row to judge.
        varied: what changes from seed to seed.
        fixed: what is the same for all seeds.

    Returns:
        One sentence for each task that has either row, then one on what the seeds do not vary.

    Raises:
        InputError: records of several corpora, or a task without counts.
    """
    values = values_by_run(records)
    if len(datasets := sorted({column.dataset for _, column in values})) > 1:
        raise InputError(f"records: expected one dataset, got {datasets}")
    method, baseline = paper_name(method), paper_name(baseline)
    sentences = []
    for column in dict.fromkeys(column for row, column in values if row in (method, baseline)):
        if column.task not in test_counts:
            raise InputError(f"test_counts: expected an entry for task {column.task}, got {sorted(test_counts)}")
        sides = values.get((method, column), {}), values.get((baseline, column), {})
        sentences.append(_sentence(column, (method, baseline), sides, test_counts[column.task]))
    if len({run.split_seed for by_run in values.values() for run in by_run}) > 1:
        return [*sentences, f"The intervals are those of {RESAMPLED}; none covers another pre-training."]
    closing = (
        f"Seeds vary {varied}; {fixed} are the same for every seed, so no interval above covers "
        "another choice of those, and a value's standard error over the test users does not shrink with more seeds."
    )
    return [*sentences, closing]


def _sentence(column: Column, names: tuple[str, str], sides: tuple[Values, Values], counts: Sequence[int]) -> str:
    method, baseline = names
    start = f"{column.task} ({column.metric}): {method} against {baseline}"
    pairs, n_splits = paired_values(*sides), len({run.split_seed for run in sides[0]})
    n = len(pairs[0])
    if n > 1 and n_splits > 1:
        return _sentence_over_splits(start, pairs)
    if not n:
        return f"{start}: no seed that both were run with, so nothing to compare."
    errors, name = zip(*(_standard_error(column, sum(side) / len(side), counts) for side in pairs), strict=True)
    users = f"the {sum(counts)} test users leave each value uncertain by ±{100 * max(errors):.1f} points ({name[0]})"
    if n == 1:
        return (
            f"{start} {_points(pairs[0][0] - pairs[1][0])} points with one seed: no spread to judge it by, and {users}."
        )
    interval = paired_interval(*pairs)
    numbers = (
        f"{_points(interval.mean)} points (95 % interval {_points(interval.low)} to {_points(interval.high)}, "
        f"paired over {n} seeds)"
    )
    return f"{start} {numbers}: {_verdict(interval, math.hypot(*errors), users)}."


def _sentence_over_splits(start: str, pairs: tuple[list[float], list[float]]) -> str:
    interval = paired_interval(*pairs, overlap=SPLIT_OVERLAP)
    gain = "gain" if interval.mean > 0 else "loss"
    verdict = "not distinguishable from no effect" if interval.low <= 0 <= interval.high else f"a {gain}"
    return (
        f"{start} {_points(interval.mean)} points (95 % interval {_points(interval.low)} to {_points(interval.high)}, "
        f"{len(pairs[0])} splits): {verdict}."
    )


def _verdict(interval: Interval, bound: float, users: str) -> str:
    if interval.low <= 0 <= interval.high:
        return f"not distinguishable from no effect; {users}"
    kind = "gain" if interval.mean > 0 else "loss"
    if abs(interval.mean) <= math.hypot(interval.high - interval.mean, 1.96 * bound):
        return f"a {kind} beyond what these seeds vary by, on these test users; not shown for others, since {users}"
    return f"a {kind} beyond what these seeds vary by and beyond the error of the test sample; {users}"


def _standard_error(column: Column, value: float, counts: Sequence[int]) -> tuple[float, str]:
    """Standard error of one value over the test users, and what it is called."""
    if column.metric != "AUC":
        return accuracy_standard_error(value, sum(counts)), "binomial standard error"
    if len(counts) != 2:
        raise InputError(f"test_counts: expected two classes for the AUC of {column.task}, got {len(counts)}")
    return auc_standard_error(value, counts[1], counts[0]), "standard error after Hanley and McNeil"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")
