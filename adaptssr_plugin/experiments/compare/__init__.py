"""``adaptssr compare``: methods x tasks x seeds as cells of a grid, and the paper's tables and figures from them.

========== ==========================================================================================
plan       what is compared, on what, and how long: a YAML file, several of them packaged
cells      one pre-training, fine-tuning or baseline each; its key is a hash of all that it depends on
store      a line in one file for every finished cell
running    cells in their order, in one process or several
grid       which cells a table or a figure needs, tuning on validation data included
report     tables and figures of what is finished
========== ==========================================================================================
"""

from .plan import ComparePlan, packaged_plans, read_plan
from .report import compare

__all__ = ["ComparePlan", "compare", "packaged_plans", "read_plan"]
