"""Profile labels of users, from the ``.user`` file of a RecBole dataset."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from recbole.config import Config

from adaptssr_plugin.corpus.formats.atomic import missing_values, read_profiles
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole.compat.config import atomic_file


class ProfileLabels(NamedTuple):
    """A classification task over users.

    Attributes:
        rows: ``(M,)`` int64, ascending: the rows of the users who have a label.
        labels: ``(M,)`` int64 in ``0..C-1``.
        classes: the C names: the file's tokens, sorted (numerically if all are numbers), or intervals of numbers.
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def profile_labels(
    config: Config, user_tokens: np.ndarray, field: str, bins: Sequence[float] | None = None
) -> ProfileLabels:
    """Look up a label for every user in the dataset's ``.user`` file.

    Users are matched by token, whatever ``load_col`` says. Loading the file with the interactions would drop those of
    users without a profile, and so change the ids of items.

    Args:
        config: from :func:`~adaptssr_plugin.recbole.build_config`.
        user_tokens: ``(U,)`` str, the user of each row, as ``corpus.user_tokens``.
        field: a column of type token or float. Users with an empty value or without a line are left out.
        bins: ascending lower bounds that turn numbers into ``len(bins) + 1`` classes: ``(18, 25)`` makes
            "under 18", "18-24" and "25+". Needed for a column of type float.

    Raises:
        InputError: no ``.user`` file, an unknown column or one of another type, fewer than two classes, wrong bins.
    """
    _check_field(config, field, bins)
    missing = missing_values(atomic_file(config, "user").columns[field])
    value_of = {user: value for user, (value,) in profile_lines(config, [field]) if value not in missing}
    rows = np.flatnonzero([user in value_of for user in user_tokens.tolist()])
    if len(rows) == 0:
        raise InputError(f"field: none of the {len(user_tokens)} users has a value of {field!r}")
    present = np.array([value_of[user] for user in user_tokens[rows].tolist()], dtype=object)
    labels, classes = _token_classes(present) if bins is None else _binned_classes(present, field, bins)
    if len(classes) < 2:
        raise InputError(f"field: expected {field!r} to have two values or more, got only {classes[0]!r}")
    return ProfileLabels(rows.astype(np.int64), labels.astype(np.int64), classes)


def profile_lines(config: Config, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Read a dataset's ``.user`` file (:func:`~adaptssr_plugin.corpus.formats.atomic.read_profiles`)."""
    return read_profiles(atomic_file(config, "user"), config["USER_ID_FIELD"], columns)


def _check_field(config: Config, field: str, bins: Sequence[float] | None) -> None:
    columns = atomic_file(config, "user").columns
    user = config["USER_ID_FIELD"]
    if user not in columns:
        raise InputError(f"USER_ID_FIELD: expected a column {user!r} in {config['dataset']}.user")
    offered = [column for column, kind in columns.items() if column != user and not kind.endswith("seq")]
    if field not in offered:
        raise InputError(f"field: expected a column of {config['dataset']}.user ({', '.join(offered)}), got {field!r}")
    if bins is None and columns[field] == "float":
        raise InputError(f"bins: needed to make classes of {field!r}, which is a column of numbers")
    if bins is not None and (
        len(bins) == 0 or not np.isfinite(bins).all() or not (np.diff(np.asarray(bins, dtype=float)) > 0).all()
    ):
        raise InputError(f"bins: expected ascending numbers, got {bins!r}")


def _token_classes(tokens: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    codes, names = pd.factorize(tokens)
    names = names.astype(str)
    numbers = pd.to_numeric(names, errors="coerce")
    order = np.argsort(names if np.isnan(numbers).any() else numbers, kind="stable")
    rank = np.argsort(order, kind="stable")
    return rank[codes], tuple(str(name) for name in names[order])


def _binned_classes(values: np.ndarray, field: str, bins: Sequence[float]) -> tuple[np.ndarray, tuple[str, ...]]:
    numbers = np.asarray(pd.to_numeric(pd.Series(values), errors="coerce"), dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise InputError(f"bins: expected {field!r} to hold numbers, got {str(values[~np.isfinite(numbers)][0])!r}")
    bounds = np.asarray(bins, dtype=np.float64)
    whole = bool((bounds % 1 == 0).all() and (numbers % 1 == 0).all())
    named = [f"{bound:g}" for bound in bounds]
    between = [_between(low, high, whole) for low, high in pairwise(bounds)]
    classes = (f"under {named[0]}", *between, f"{named[-1]}+")
    return np.searchsorted(bounds, numbers, side="right"), classes


def _between(low: float, high: float, whole: bool) -> str:
    if not whole:
        return f"{low:g} to under {high:g}"
    return f"{low:g}" if high - low == 1 else f"{low:g}-{high - 1:g}"
