"""Tables and figures of the paper's evaluation, from measured values."""

from .figures.similarity import SimilarityDistributions, similarity_distributions
from .figures.similarity_plot import draw_similarity
from .records import Record, paper_name, read_records, write_records
from .seed_uncertainty import seed_uncertainty
from .tables import PAPER_ROWS, Column, Table2, table_2

__all__ = [
    "PAPER_ROWS",
    "Column",
    "Record",
    "SimilarityDistributions",
    "Table2",
    "draw_similarity",
    "paper_name",
    "read_records",
    "seed_uncertainty",
    "similarity_distributions",
    "table_2",
    "write_records",
]
