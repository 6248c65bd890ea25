"""CoSeRec (Liu et al., 2021): CL4SRec's operators, and substitution and insertion of correlated items.

Evidence: operators, ItemCF-IUF and the rule for short sequences verified against the authors' code; its masking by
padding and its crops that never reach the newest item are not reproduced (spec §1.4).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..augment import ViewPair, coserec_pair
from ..corpus import ItemCorrelation
from ..training.pairwise import Views
from .comparison import ComparisonOptions
from .registry import Method, register
from .views import ViewSource


def correlated_pair(options: ComparisonOptions, source: ViewSource) -> Views:
    """Two views by five operators, with the correlation of the training histories (spec §1.5)."""
    neighbours = ItemCorrelation.from_histories(source.histories()).neighbours[:, 0]
    pair = coserec_pair(
        torch.from_numpy(neighbours),
        mask_id=source.n_items,
        substitute=options.substitute_ratio,
        insert=options.insert_ratio,
        crop=options.crop_ratio,
        mask=options.mask_ratio,
        reorder=options.reorder_ratio,
    )
    return _Padded(pair, source.max_len)


class _Padded(nn.Module):
    """Views of rows that are padded to the full width first, so that an inserted item pushes none out for nothing."""

    def __init__(self, views: nn.Module, width: int) -> None:
        super().__init__()
        self.views = views
        self.width = width

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> ViewPair:
        pair: ViewPair = self.views(F.pad(item_seq, (0, self.width - item_seq.shape[1])), item_seq_len, generator)
        return pair


METHOD = register(Method("coserec", "operators and correlation: the authors' code", views=correlated_pair))
