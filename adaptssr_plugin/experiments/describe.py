"""Description of a corpus: the block of the paper's Table 1, and sample users as in its Figures 1 and 6."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..corpus import BehaviourCorpus, is_corpus
from ..corpus.formats.atomic import missing_values
from ..recbole.compat.config import atomic_file
from ..recbole.compat.profiles import profile_lines
from ..recbole.compat.user_sequences import load_user_sequences
from ..recbole.user_model.pretrain import Source
from .sample_users import SampleUsers, sample_users
from .tables import aligned

__all__ = ["CorpusStatistics", "Description", "LabelStatistics", "describe", "label_statistics"]

_ALL = {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": "user"}  # nothing held out
_QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)


@dataclass(frozen=True)
class LabelStatistics:
    """A column of the ``.user`` file (the tasks of Table 1).

    Attributes:
        name: of the column.
        kind: token, float, token_seq or float_seq.
        rows: number of values that the users of the corpus have; in a list every entry counts.
        classes: number of different values.
        largest: the most frequent one.
        largest_rows: its number of occurrences.
        largest_share: its share of the rows, which is the majority class's accuracy.
    """

    name: str
    kind: str
    rows: int
    classes: int
    largest: str
    largest_rows: int
    largest_share: float


@dataclass(frozen=True)
class CorpusStatistics:
    """The block of Table 1 for one corpus: all that RecBole keeps after its filters, nothing held out.

    Attributes:
        dataset: its name.
        sequences: number of users.
        items: number of different items, without the padding.
        behaviours: number of behaviours of all users.
        mean_length: behaviours per user.
        length_quantiles: of the number of behaviours, by "min", "5 %", …, "max".
        labels: the columns of the ``.user`` file.
    """

    dataset: str
    sequences: int
    items: int
    behaviours: int
    mean_length: float
    length_quantiles: dict[str, float]
    labels: tuple[LabelStatistics, ...]

    def text(self) -> str:
        """Format the block in aligned columns."""
        rows = [
            ("sequences (users)", f"{self.sequences:,}"),
            ("items", f"{self.items:,}"),
            ("behaviours", f"{self.behaviours:,}"),
            ("mean length", f"{self.mean_length:.2f}"),
            *((f"  {name}", f"{value:g}") for name, value in self.length_quantiles.items()),
        ]
        lines = [self.dataset, *aligned(rows, right=(1,))]
        if self.labels:
            head = ("label", "type", "rows", "classes", "largest class", "of rows", "share")
            table = [
                (label.name, label.kind, f"{label.rows:,}", f"{label.classes:,}", label.largest,
                 f"{label.largest_rows:,}", f"{100 * label.largest_share:.2f} %")
                for label in self.labels
            ]  # fmt: skip
            lines += ["", *aligned([head, *table], right=(2, 3, 5, 6))]
        return "\n".join(lines)


@dataclass(frozen=True)
class Description:
    """The result of :func:`describe`; ``samples`` is None if no users were asked for."""

    statistics: CorpusStatistics
    samples: SampleUsers | None

    def text(self) -> str:
        """All of it as text."""
        return "\n\n".join(part.text() for part in (self.statistics, self.samples) if part is not None)


def describe(
    source: Source,
    *,
    users: int = 0,
    seed: int = 0,
    strength: float = 0.6,
    max_len: int = 100,
    model: str | Path | None = None,
) -> Description:
    """Describe a corpus, as the paper's Table 1 does, and sample users of it.

    Args:
        source: the dataset and RecBole's options, as for ``pretrain``.
        users: number of sample users, shown with their sequences after each operator; their histories are those that
            ``pretrain`` sees.
        seed: of the users and their views.
        strength: ρ of the operators; cropping keeps 1 - ρ.
        max_len: the number of newest behaviours of a sample user that count; a model has its own.
        model: folder of a finished pre-training, whose encoder computes λ; None: no λ.

    Raises:
        InputError: an error in loading the dataset, a number out of range, or a model of other items.
    """
    config = source.config(max_len)
    whole = config
    # Files that were split beforehand have no other split; a memory-mapped corpus has none.
    if not config["benchmark_filename"] and not is_corpus(source.dataset):
        whole = dataclasses.replace(source, options={**source.options, "eval_args": _ALL}).config(max_len)
    corpus = load_user_sequences(whole).corpus
    statistics = _statistics(source.located(config).name, corpus, label_statistics(config, corpus.user_tokens))
    samples = None
    if users:
        seen = load_user_sequences(config).corpus
        samples = sample_users(seen, users, seed=seed, strength=strength, max_len=max_len, model=model)
    return Description(statistics, samples)


def _statistics(name: str, corpus: BehaviourCorpus, labels: tuple[LabelStatistics, ...]) -> CorpusStatistics:
    lengths = corpus.lengths
    names = ["min", *(f"{100 * share:g} %" for share in _QUANTILES[1:-1]), "max"]
    quantiles = np.quantile(lengths, _QUANTILES).tolist()
    return CorpusStatistics(
        dataset=name,
        sequences=len(corpus),
        # RecBole numbers only items that occur in the rows that it keeps.
        items=corpus.n_items - 1,
        behaviours=len(corpus.items),
        mean_length=float(lengths.mean()),
        length_quantiles=dict(zip(names, quantiles, strict=True)),
        labels=labels,
    )


def label_statistics(config: Any, user_tokens: np.ndarray) -> tuple[LabelStatistics, ...]:
    """Count the values of every column of the dataset's ``.user`` file; a user's first line counts.

    Args:
        config: of the dataset.
        user_tokens: (U,) str, the users that count.

    Raises:
        InputError: a ``.user`` file that cannot be read. Without such a file there are no columns.
    """
    if not (Path(config["data_path"]) / f"{config['dataset']}.user").is_file():
        return ()
    columns = dict(atomic_file(config, "user").columns)
    columns.pop(config["USER_ID_FIELD"], None)
    counts: dict[str, Counter[str]] = {column: Counter() for column in columns}
    known = set(user_tokens.tolist())
    for user, values in profile_lines(config, list(columns)):
        if user in known:
            for (column, kind), value in zip(columns.items(), values, strict=True):
                counts[column].update(_entries(kind, value, config["seq_separator"]))
    return tuple(_label(column, columns[column], counted) for column, counted in counts.items())


def _entries(kind: str, value: str, separator: str) -> list[str]:
    """Return the labels in a cell: every entry of a list; none if the cell is empty."""
    if kind.endswith("_seq"):
        return [entry for entry in value.split(separator) if entry]
    return [] if value in missing_values(kind) else [value]


def _label(name: str, kind: str, counts: "Counter[str]") -> LabelStatistics:
    rows = counts.total()
    largest, most = counts.most_common(1)[0] if counts else ("-", 0)
    return LabelStatistics(name, kind, rows, len(counts), largest, most, most / rows if rows else 0.0)
