"""Options of the user model."""

from dataclasses import dataclass
from typing import Any

from ...encoders import available_encoders, encoder_kind
from ...encoders.arguments import check_heads
from ...errors import InputError
from .declaring import OptionGroup, choice, count, option


@dataclass(frozen=True)
class EncoderOptions(OptionGroup):
    """The size and the kind of the encoder, which every stage shares."""

    group = "encoder"

    encoder: str = choice(
        "transformer",
        available_encoders,
        "User model: transformer, the paper's; gru4rec, nextitnet or sasrec, all causal; or one registered in Python.",
        "the paper",
    )
    dim: int = count(64, "Length d of item and user vectors.", "the paper")
    n_layers: int = count(2, "Transformer layers.", "the paper")
    n_heads: int = count(2, "Attention heads; a divisor of dim.", "the paper")
    ff_dim: int = count(256, "Width of the feed-forward part.", "the authors' code")
    max_len: int = count(100, "Number of newest behaviours of a user that are used.", "the paper, for TTL")
    embed_norm: bool = option(True, "Layer norm on item + position; the paper's Eq. 2 has none.", "the authors' code")
    embed_dropout: bool = option(True, "Dropout on item + position; the paper's Eq. 2 has none.", "the authors' code")
    interests: int = count(
        1, "Pooled vectors per user: 1 (Eq. 3-4), or a dictionary of several (idicl: 4).", "the paper, Eq. 3-4"
    )

    def check_encoder(self) -> None:
        """Check options against one another; raises InputError."""
        check_heads(self.dim, self.n_heads)
        if self.interests > 1 and "interests" not in encoder_kind(self.encoder).takes:
            raise InputError(f"interests: expected 1 for encoder {self.encoder}, got {self.interests}")

    def encoder_arguments(self, n_items: int) -> dict[str, Any]:
        """Arguments of :func:`make_encoder` except dropout, which differs from stage to stage."""
        takes = encoder_kind(self.encoder).takes
        return {"kind": self.encoder, "n_items": n_items, **{name: getattr(self, name) for name in takes}}
