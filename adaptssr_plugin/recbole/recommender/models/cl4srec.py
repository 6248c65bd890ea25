"""CL4SRec, which RecBole lacks: SASRec with crop, mask and reorder under InfoNCE (Xie et al., ICDE 2022)."""

from recbole.model.sequential_recommender.sasrec import SASRec


class CL4SRec(SASRec):
    """SASRec; its additions are in ``defaults/models/CL4SRec.yaml``, and ``ssl_loss`` replaces its loss."""
