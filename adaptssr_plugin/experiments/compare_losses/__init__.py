"""``adaptssr compare-losses``: RecBole models with and without ``ssl_loss``, on any data.

=========== ==========================================================================================
plan        models, losses, the values to choose from, seeds, shares of the users: a YAML file
cells       one run of RecBole each
grid        rows of the table; validation values choose one point of each row's grid
differences means over users, and paired tests over them
report      tables, sentences and a figure of what is finished
=========== ==========================================================================================
"""

from .plan import LossPlan, packaged_loss_plans, read_loss_plan
from .report import compare_losses

__all__ = ["LossPlan", "compare_losses", "packaged_loss_plans", "read_loss_plan"]
