"""Tables and figures of the paper's evaluation, from measured values."""

from adaptssr_plugin.experiments.figures.similarity import (
    SimilarityDistributions,
    similarity_distributions,
)
from adaptssr_plugin.experiments.figures.similarity_plot import draw_similarity
from adaptssr_plugin.experiments.records import Record, paper_name, read_records, write_records
from adaptssr_plugin.experiments.seed_uncertainty import seed_uncertainty
from adaptssr_plugin.experiments.tables import PAPER_ROWS, Column, Table2, table_2

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
