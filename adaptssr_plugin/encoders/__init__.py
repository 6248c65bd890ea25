"""The user model of Eq. 2-4: item embedding with a separate [MASK] vector, Transformer, attention pooling."""

from .embedding import ItemEmbedding
from .heads import MaskedItemHead
from .pooling import AttentionPooling
from .transformer import UserEncoder

__all__ = ["AttentionPooling", "ItemEmbedding", "MaskedItemHead", "UserEncoder"]
