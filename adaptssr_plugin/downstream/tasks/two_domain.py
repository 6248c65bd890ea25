"""Users active in two domains: pre-train on one, recommend unseen items of the other."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...corpus import BehaviourCorpus, read_sequence_lines
from ...corpus.formats.dataset_writer import Converted, DatasetWriter, file_sizes
from ...errors import InputError
from ...training.checkpoints import write_text
from .cold import ColdRecommendationTask
from .cold_files import ColdRows, cold_task, write_cold_rows
from .inputs import renumbered


@dataclass(frozen=True, eq=False)
class TwoDomains:
    """The contents of a file of two domains.

    Attributes:
        name: of the dataset.
        source: whole histories in the source domain, for pre-training, of the users that have one. It has no item of
            the target domain. It includes what users did in the source domain after a target, like any other
            behaviour of the same users (METHODS.md, row 54); the inputs of the pairs end before their targets.
        rows: pairs of a user and an item of the target domain, in the file's order, with the number of earlier source
            behaviours. Pairs without any are left out; of a repeated item the first is kept.
    """

    name: str
    source: BehaviourCorpus
    rows: ColdRows

    def task(self) -> ColdRecommendationTask:
        """Make the task, for an encoder of the items of ``source``."""
        return cold_task(self.name, self.rows, self.source)

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``<name>.inter``, for pre-training, and ``<name>.cold``, the pairs; returns their paths.

        The timestamp of a behaviour is its position in the user's history and cannot be compared across users: of
        RecBole's splits only those within each user's history make sense.
        """
        inter, cold = (Path(folder) / f"{self.name}.{ending}" for ending in ("inter", "cold"))
        lengths = self.source.lengths
        users = np.repeat(self.source.user_tokens, lengths).tolist()
        items = self.source.item_tokens[self.source.items].tolist()
        position = (np.arange(len(items)) - np.repeat(self.source.offsets[:-1], lengths)).tolist()
        lines = [f"{user}\t{item}\t{time}" for user, item, time in zip(users, items, position, strict=True)]
        write_text(inter, "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *lines]) + "\n")
        write_cold_rows(cold, self.rows)
        return [inter, cold]


def two_domains(path: str | Path, boundary: int, target: str = "low") -> TwoDomains:
    """Read a file with one line per user, the items of two domains merged in order of time.

    Args:
        path: as for :func:`~adaptssr_plugin.corpus.read_sequence_lines`; its items are integers.
        boundary: the last item of the low domain; larger ones belong to the high one.
        target: the domain to recommend from, ``low`` or ``high``; the other is for pre-training.

    Raises:
        InputError: an unreadable file, items that are not integers, or a domain without items.
    """
    if target not in ("low", "high"):
        raise InputError(f"target: expected low or high, got {target!r}")
    both = read_sequence_lines(path)
    is_low = np.append(False, _integers_of(both.item_tokens[1:], path) <= boundary)
    is_target = (is_low if target == "low" else ~is_low)[both.items]  # (n_behaviours,)
    if is_target.all() or not is_target.any():
        raise InputError(f"boundary: expected items on both sides of it in {path}, got {boundary}")
    user = np.repeat(np.arange(len(both)), both.lengths)
    so_far = np.append(0, np.cumsum(~is_target))
    before = so_far[:-1] - so_far[both.offsets[user]]  # source behaviours of the same user before this one
    asked = np.flatnonzero(is_target & (before > 0))
    if len(asked) == 0:
        raise InputError(f"{path}: expected an item of the target domain behind one of the source domain, got none")
    _, first = np.unique(user[asked] * both.n_items + both.items[asked], return_index=True)
    asked = asked[np.sort(first)]
    rows = ColdRows(both.user_tokens[user[asked]], both.item_tokens[both.items[asked]], before[asked])
    source, _ = renumbered(both, both.item_tokens[np.append(0, np.unique(both.items[~is_target]))])
    return TwoDomains(Path(path).stem, source, rows)


def convert_two_domains(
    path: str | Path,
    folder: str | Path,
    boundary: int,
    target: str = "low",
    *,
    name: str | None = None,
    overwrite: bool = False,
) -> Converted:
    """Convert a file of two domains to RecBole's files of one and pairs of the other, as :meth:`TwoDomains.write`.

    Args:
        path: as for :func:`two_domains`.
        folder: where the files go.
        boundary: as for :func:`two_domains`.
        target: as for :func:`two_domains`.
        name: of the dataset; None: the folder's.
        overwrite: replace files of that name.

    Raises:
        InputError: as :func:`two_domains`; an invalid name, or existing files.
    """
    name = DatasetWriter(Path(folder), name, overwrite).name  # it has checked for existing files
    file_sizes([Path(path)])
    domains = dataclasses.replace(two_domains(path, boundary, target), name=name)
    files, source = domains.write(folder), domains.source
    labelled = {"cold": len(np.unique(domains.rows.users))}
    return Converted(Path(folder), tuple(files), len(source), source.n_items - 1, len(source.items), labelled)


def _integers_of(tokens: npt.NDArray[np.str_], path: str | Path) -> npt.NDArray[np.int64]:
    try:
        return tokens.astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: expected items that are integers, got another ({error})") from None
