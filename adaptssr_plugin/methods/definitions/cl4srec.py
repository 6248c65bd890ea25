"""CL4SRec (Xie et al., ICDE 2022): crop, mask and reorder; the two views of a row use different operators.

Evidence: operators and ratios verified against the code of DuoRec's repository; its in-place edits of stored
sequences are not reproduced.
"""

from ..registry import Method, register
from .adaptssr import two_views

METHOD = register(Method("cl4srec", "operators: public code (DuoRec's repository)", views=two_views))
