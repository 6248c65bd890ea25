"""The user model of Eq. 2-4: item embedding with a separate [MASK] vector, Transformer, attention pooling."""

from .causal import CausalEncoder, CausalTransformer, ConvolutionEncoder, GRUEncoder
from .embedding import ItemEmbedding, item_table
from .heads import MaskedItemHead
from .interests import InterestPooling
from .pooling import AttentionPooling
from .registry import EncoderKind, available_encoders, encoder_kind, make_encoder, register_encoder, unregister_encoder
from .transformer import UserEncoder

__all__ = [
    "AttentionPooling",
    "CausalEncoder",
    "CausalTransformer",
    "ConvolutionEncoder",
    "EncoderKind",
    "GRUEncoder",
    "InterestPooling",
    "ItemEmbedding",
    "MaskedItemHead",
    "UserEncoder",
    "available_encoders",
    "encoder_kind",
    "item_table",
    "make_encoder",
    "register_encoder",
    "unregister_encoder",
]
