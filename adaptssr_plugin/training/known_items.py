"""Transfer of item tables between catalogues: rows are matched by token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class KnownItems:
    """The items that two catalogues have in common.

    Attributes:
        here: int64 ``(K + 1,)``, their ids in the target catalogue; the padding, 0, first.
        there: int64 ``(K + 1,)``, their ids in the source catalogue.
        n_here: ids of the target catalogue, including the padding.
        n_there: the same of the source catalogue.
    """

    here: Tensor
    there: Tensor
    n_here: int
    n_there: int

    def __str__(self) -> str:
        taken, all_items = len(self.here) - 1, self.n_here - 1
        return f"{taken:,} of {all_items:,} items taken by token, {all_items - taken:,} keep their initialisation"

    def fit(self, target: Tensor, source: Tensor) -> bool:
        """Tell whether two tensors have a row per item, and either both or neither have one more, for [MASK]."""
        if not target.dim() or target.dim() != source.dim() or target.shape[1:] != source.shape[1:]:
            return False
        return target.shape[0] - self.n_here == source.shape[0] - self.n_there in (0, 1)

    @torch.no_grad()
    def copy_rows(self, target: Tensor, source: Tensor) -> None:
        """Copy the rows of common items, the padding and [MASK]; both tensors have to pass :meth:`fit`."""
        target[self.here] = source[self.there].to(target)
        target[self.n_here :] = source[self.n_there :].to(target)


def known_items(argument: str, here: Sequence[str], there: Sequence[str], owner: object) -> KnownItems | None:
    """Find the items that two catalogues have in common.

    Args:
        argument: the argument that names the source, for the message.
        here: the token of every id of the target catalogue; the first is the padding and is not compared.
        there: the same of the source catalogue.
        owner: to what the source catalogue belongs, for the message.

    Returns:
        None if both have the same items with the same ids.

    Raises:
        InputError: no item in common.
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
