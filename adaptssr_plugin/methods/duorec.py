"""DuoRec (Qiu et al., WSDM 2022): a sequence under dropout against another with the same target.

Evidence: verified against the authors' code; for user models the key is the last behaviour, as AdaptSSR's paper says.
"""

from ..training.pairwise import Views
from .comparison import ComparisonOptions
from .registry import Method, register
from .views import ViewSource


def same_target(_options: ComparisonOptions, source: ViewSource) -> Views:
    """The row itself, and one drawn from the rows of the same key item (spec §1.7)."""
    return source.same_target()


METHOD = register(Method("duorec", "same-target positives: the authors' code", views=same_target))
