"""CLUE (Cheng et al., ICDM 2021): the same sequence under two dropout masks.

Evidence: our reconstruction from the abstract; the default objective is InfoNCE.
"""

from ...augment import DropoutPair
from ...training.stages.pairwise import Views
from ..options.comparison import ComparisonOptions
from ..registry import Method, register
from ..views import ViewSource


def dropout_pair(_options: ComparisonOptions, _source: ViewSource) -> Views:
    """Both views are the sequence itself; only the encoder's dropout tells them apart."""
    return DropoutPair()


METHOD = register(Method("clue", "objective: our reconstruction from the abstract", views=dropout_pair))
