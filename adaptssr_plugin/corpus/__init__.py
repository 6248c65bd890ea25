"""Users' behaviour sequences: in memory, from files, and in batches."""

from adaptssr_plugin.corpus.batch import Batch
from adaptssr_plugin.corpus.behaviours import BehaviourCorpus
from adaptssr_plugin.corpus.correlation import ItemCorrelation
from adaptssr_plugin.corpus.formats.readers import read_interactions, read_sequence_lines
from adaptssr_plugin.corpus.loader import BatchLoader
from adaptssr_plugin.corpus.on_disk import CorpusOnDisk, is_corpus, open_corpus
from adaptssr_plugin.corpus.same_target import same_target_pair
from adaptssr_plugin.corpus.svd_items import put_item_vectors, svd_item_vectors

__all__ = [
    "Batch",
    "BatchLoader",
    "BehaviourCorpus",
    "CorpusOnDisk",
    "ItemCorrelation",
    "is_corpus",
    "open_corpus",
    "put_item_vectors",
    "read_interactions",
    "read_sequence_lines",
    "same_target_pair",
    "svd_item_vectors",
]
