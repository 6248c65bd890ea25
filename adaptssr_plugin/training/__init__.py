"""What a stage of training is: its step, its validation criterion, what moves on to the next; files of a run.

No loop over epochs lives here: RecBole's trainer turns the crank (:mod:`adaptssr_plugin.recbole`).
"""

from .artefacts import Artefact, load_artefact, save_artefact
from .checkpoints import LastTwo, load_checkpoint, write_atomically, write_checkpoint
from .collapse import collapse_note
from .epoch_state import EpochState
from .filler import MaskedItemFiller
from .gradient_cache import encode_in_micro_batches
from .item_prediction import ItemPredictionStage
from .masked_items import MaskedItemStage
from .negative_items import NegativeItems
from .next_behaviours import NextBehaviourStage
from .next_items import NextItemStage
from .pairwise import PairwiseStage
from .run_fingerprint import RunFingerprint
from .stage import Stage, StepResult, Streams
from .stopping import StopRequest
from .transfer import MLM_TO_RANKING, WHOLE_ENCODER, TransferReport, transfer
from .with_masked_items import WithMaskedItemsStage

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
