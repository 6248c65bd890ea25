"""CoSeRec, which RecBole lacks: SASRec with five operators under InfoNCE (Liu et al., 2021)."""

from recbole.model.sequential_recommender.sasrec import SASRec


class CoSeRec(SASRec):
    """SASRec; its additions are in ``defaults/models/CoSeRec.yaml``, and ``ssl_loss`` replaces its loss."""
