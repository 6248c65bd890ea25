"""DuoRec, which RecBole lacks: SASRec with pairs of rows of one target under InfoNCE (Qiu et al., WSDM 2022)."""

from recbole.model.sequential_recommender.sasrec import SASRec


class DuoRec(SASRec):
    """SASRec; what is added to it stands in ``defaults/models/DuoRec.yaml``, and ``ssl_loss`` replaces its loss."""
