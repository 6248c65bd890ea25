"""What a model trained on one catalogue knows of another: rows of item tables, taken over by token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class KnownItems:
    """The items of a catalogue that another one has too.

    Attributes:
        here: int64 ``(K + 1,)``, ids of the items that both have in the catalogue that takes; the padding, 0, first.
        there: int64 ``(K + 1,)``, their ids in the other one.
        n_here: ids of the catalogue that takes, the padding included.
        n_there: likewise of the other one.
    """

    here: Tensor
    there: Tensor
    n_here: int
    n_there: int

    def __str__(self) -> str:
        taken, all_items = len(self.here) - 1, self.n_here - 1
        return f"{taken:,} of {all_items:,} items taken by token, {all_items - taken:,} keep their initialisation"

    def fit(self, target: Tensor, source: Tensor) -> bool:
        """Tell whether two tensors have a row for every item, and both or neither one more, of [MASK]."""
        if not target.dim() or target.dim() != source.dim() or target.shape[1:] != source.shape[1:]:
            return False
        return target.shape[0] - self.n_here == source.shape[0] - self.n_there in (0, 1)

    @torch.no_grad()
    def copy_rows(self, target: Tensor, source: Tensor) -> None:
        """Copy the rows of known items, of the padding and of [MASK]; both tensors as :meth:`fit` wants them."""
        target[self.here] = source[self.there].to(target)
        target[self.n_here :] = source[self.n_there :].to(target)


def known_items(argument: str, here: Sequence[str], there: Sequence[str], owner: object) -> KnownItems | None:
    """Find the items of a catalogue that another one has too.

    Args:
        argument: that names the other one, for the message.
        here: the token of every id of the catalogue that takes; the first one is the padding's and is not compared.
        there: likewise of the other one.
        owner: what the other one belongs to, for the message.

    Returns:
        None where both number the same items in the same way.

    Raises:
        InputError: not a single item that both have.
    """
    if list(here[1:]) == list(there[1:]):
        return None
    number = {token: item for item, token in enumerate(there) if item}
    pairs = [(0, 0), *((item, number[token]) for item, token in enumerate(here) if item and token in number)]
    if len(pairs) == 1:
        raise InputError(
            f"{argument}: expected some of the {len(here) - 1:,} items here among the {len(there) - 1:,} of {owner}, "
            "found none"
        )
    ids = torch.tensor(pairs)
    return KnownItems(ids[:, 0], ids[:, 1], len(here), len(there))
