"""DuoRec, which RecBole lacks: SASRec with pairs of rows with one target under InfoNCE (Qiu et al., WSDM 2022)."""

from recbole.model.sequential_recommender.sasrec import SASRec


class DuoRec(SASRec):
    """SASRec; its additions are in ``defaults/models/DuoRec.yaml``, and ``ssl_loss`` replaces its loss."""
