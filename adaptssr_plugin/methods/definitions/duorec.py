"""DuoRec (Qiu et al., WSDM 2022): a sequence under dropout against another with the same target.

Evidence: verified against the authors' code. For user models the key is the last behaviour, as in AdaptSSR's paper.
"""

from ...training.stages.pairwise import Views
from ..options.comparison import ComparisonOptions
from ..options.user_level import UserLevelOptions
from ..registry import Method, register
from ..views import UserHistories, ViewSource


def same_target(options: ComparisonOptions, source: ViewSource) -> Views:
    """The row itself, and one drawn from the rows with the same key item."""
    if isinstance(options, UserLevelOptions) and isinstance(source, UserHistories):
        return source.same_target(options.duorec_key, skip_identical=options.skip_identical)  # type: ignore[arg-type]
    return source.same_target()


METHOD = register(Method("duorec", "same-target positives: the authors' code", views=same_target))
