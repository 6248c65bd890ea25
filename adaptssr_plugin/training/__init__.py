"""The parts of a training: stages (step, validation criterion, what the next stage takes over) and the files of a run.

There is no loop over epochs here: RecBole's trainer runs it (:mod:`adaptssr_plugin.recbole`).
"""

from .artefacts import Artefact, load_artefact, save_artefact
from .checkpoints import LastTwo, load_checkpoint, write_atomically, write_checkpoint
from .collapse import collapse_note
from .epoch_state import EpochState
from .run_fingerprint import RunFingerprint
from .stages.base import Stage, StepResult, Streams
from .stages.filler import MaskedItemFiller
from .stages.gradient_cache import encode_in_micro_batches
from .stages.item_prediction import ItemPredictionStage
from .stages.masked_items import MaskedItemStage
from .stages.negative_items import NegativeItems
from .stages.next_behaviours import NextBehaviourStage
from .stages.next_items import NextItemStage
from .stages.pairwise import PairwiseStage
from .stages.with_masked_items import WithMaskedItemsStage
from .stopping import StopRequest
from .transfer import MLM_TO_RANKING, WHOLE_ENCODER, TransferReport, transfer

__all__ = [
    "MLM_TO_RANKING",
    "WHOLE_ENCODER",
    "Artefact",
    "EpochState",
    "ItemPredictionStage",
    "LastTwo",
    "MaskedItemFiller",
    "MaskedItemStage",
    "NegativeItems",
    "NextBehaviourStage",
    "NextItemStage",
    "PairwiseStage",
    "RunFingerprint",
    "Stage",
    "StepResult",
    "StopRequest",
    "Streams",
    "TransferReport",
    "WithMaskedItemsStage",
    "collapse_note",
    "encode_in_micro_batches",
    "load_artefact",
    "load_checkpoint",
    "save_artefact",
    "transfer",
    "write_atomically",
    "write_checkpoint",
]
