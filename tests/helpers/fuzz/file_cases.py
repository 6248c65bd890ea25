"""Datasets in atomic files that go wrong elsewhere, and a literal reader of them to compare with."""

from fractions import Fraction
from typing import NamedTuple

from hypothesis import strategies as st

HEADER = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
# What pandas takes for a missing value, a quotation, a number or a date; what numpy and terminals take for an end.
WORDS = "NA N/A nan NaN None null NULL <NA> #N/A inf -nan True 1e5 007 7 7.0 -0 +1 0x1F 1_000 2020-01-01 [PAD] [MASK]"
ODD = [*WORDS.split(), "a,b", "a:token", "#c", "漢字", "🎬", "ünï", "é", "label", "0", "1", "2"]
ODD += ['"', '"open', 'shut"', '"both"', "'", "\\", "\\t", "", "x" * 300, "y" * 4096, "z" * 4097, "u\0", "c\rr"]
ODD += [" ", " a", "a ", "a  b", "\u00a0", "\u2028", "\x85", "\x0b", "\x1c", "\ufeff", "\u202e", "e\u0301"]
TOKENS = st.one_of(
    st.sampled_from(ODD), st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), max_size=6)
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SECONDS = st.integers(1_700_000_000, 1_700_000_300)
TIMES = st.one_of(
    st.lists(SECONDS.map(str), min_size=1),
    st.lists(SECONDS.map(lambda time: str(1000 * time)), min_size=1),
    st.lists(st.integers(0, 900).map(lambda time: str(1_700_000_000_000_000_000 + time)), min_size=1),
    st.lists(st.integers(-3, 3).map(str), min_size=1),
    st.lists(st.integers(10**30, 10**30 + 9).map(str), min_size=1),
    st.lists(st.floats(1.7e9, 1.7e9 + 1).map(repr), min_size=1),
    st.lists(st.one_of(FLOATS.map(repr), st.integers(2**53, 2**53 + 4).map(str)), min_size=1),
    st.lists(st.sampled_from(["1", "2", "", "nan", "noon", "NA", "inf", "1e400", "1_0", "3.5", " 4"]), min_size=1),
)  # fmt: skip


class Dataset(NamedTuple):
    """The texts of two files, and the cells that they were made of."""

    inter: str
    user: str
    rows: list[tuple[str, str, str]]  # user, item, time
    labels: list[tuple[str, str]]


@st.composite
def datasets(draw):
    """Draw a dataset of a few users whose rows are in no order; odd cells are likely, and may stand anywhere."""
    users = draw(st.lists(st.one_of(st.just("plain"), TOKENS), min_size=1, max_size=4))
    items = draw(st.lists(st.one_of(st.sampled_from("abcdef"), TOKENS), min_size=2, max_size=6))
    times = draw(TIMES)
    cells = st.tuples(st.sampled_from(users), st.sampled_from(items), st.sampled_from(times))
    rows = draw(st.lists(cells, min_size=3, max_size=30))
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    lines = ["\t".join(HEADER), *("\t".join([user, item, "3", time]) for user, item, time in rows)]
    where = draw(st.integers(0, 25))  # mostly beyond the end
    if where < len(lines) - 1:
        lines[where + 1] = draw(st.sampled_from(["", lines[where + 1] + "\t", lines[where + 1].partition("\t")[0]]))
        rows = None if lines[where + 1] else rows[:where] + rows[where + 1 :]
    labels = draw(st.lists(st.tuples(st.sampled_from(users), st.one_of(st.sampled_from("FM"), TOKENS)), max_size=6))
    profiles = ["user_id:token\tsex:token", *(f"{user}\t{label}" for user, label in labels)]
    bom = draw(st.sampled_from(["", "", "\ufeff"]))
    return Dataset(bom + end.join(lines) + end, "\n".join(profiles) + "\n", rows, labels)


def expected_histories(rows):
    """Each user's items, oldest first, times compared as the exact numbers that they spell.

    None for a file that is to be refused: a malformed row, a name that cannot be one, a time that is no number.
    """
    found = {}
    if rows is None or not all(is_name(name) for user, item, _ in rows for name in (user, item)):
        return None
    for user, item, time in rows:
        try:
            number = Fraction(int(time)) if time.lstrip("+-").isdecimal() else Fraction(float(time))
        except (ValueError, OverflowError):
            return None
        if "_" in time:
            return None
        found.setdefault(user, []).append((number, item))
    return {user: [item for _, item in sorted(seen, key=lambda pair: pair[0])] for user, seen in found.items()}


def expected_labels(labels):
    """The first label of each user, if it has one; None for a file that is to be refused."""
    found = {}
    for user, label in labels:
        if not is_name(user) or not (label == "" or is_name(label)):
            return None
        found.setdefault(user, label)
    return {user: label for user, label in found.items() if label}


def is_name(text):
    """Whether a cell can name a user, an item or a class."""
    return text not in ("", "[PAD]") and len(text) <= 4096 and not {"\0", "\r"} & {*text}
